"""`make run`: both programs on this machine, one key, one line to paste; Ctrl-C stops them."""

import signal

# Before the other imports take their time: until there is something to stop, Ctrl-C ends the process without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import asyncio
import json
import sys
from pathlib import Path

from enclave_signer.tezos import Kind, Right, encode
from host_backend.config import load_config
from host_backend.errors import HostError
from host_backend.stores import marks_admin
from host_backend.watermark.rule import MarkKey
from quickstart.folder import StartFailed
from quickstart.local_signer import LocalSigner, running_signer
from quickstart.messages import CHAIN, attestation
from quickstart.stopping import say, until_signal

STATE = Path(".state")


async def run(folder: Path, *, in_memory_allowed: bool) -> int:
    """Run until a signal, or until a program ends; return the exit code."""
    code = await until_signal(_run(folder, in_memory_allowed=in_memory_allowed))
    say(f"Stopped. Keys and marks stay in {folder}/ for the next run.")
    return code or 0


async def _run(folder: Path, *, in_memory_allowed: bool) -> int:
    async with running_signer(folder, ["tz4"], in_memory_allowed=in_memory_allowed) as signer:
        introduce(signer)
        try:
            ended = await signer.wait_ended()
        except asyncio.CancelledError:
            say("\nStopping.")
            raise
        say(f"\n{ended}, so both are stopped. To go on, run the same command again.")
    return 1


def introduce(signer: LocalSigner) -> None:
    """Say what was done, and how to sign."""
    (pkh, *_) = signer.keys
    body = json.dumps(attestation(next_level(signer, pkh)).hex())
    say(f"enclave   holds the keys; they are sealed by {signer.folder / 'sealing.key'}: fine for a laptop only")
    say(f"host      {signer.url}   health: {signer.utility_url}/healthz")
    say(
        f"key       {pkh} ({'generated inside the enclave just now' if signer.first_run else 'kept from an earlier run'})"
    )
    say(f"files     {signer.folder} (configuration, sealed keys, watermarks, logs)")
    say("\nSign an attestation:\n")
    say(f"    curl -d '{body}' {signer.url}/keys/{pkh}\n")
    say("Ctrl-C stops both programs.")


def next_level(signer: LocalSigner, pkh: str) -> int:
    """Return the lowest level at which a key may sign any attestation."""
    stored = marks_admin(load_config(signer.config_file)).read()
    mark = stored.marks.get(MarkKey(encode(Kind.CHAIN_ID, CHAIN), pkh, Right.ATTESTATION))
    return 1 if mark is None else mark.level + 1


def main() -> None:
    """Run, or say in words why not."""
    parser = argparse.ArgumentParser(description="Run both programs on this machine.")
    parser.add_argument("folder", type=Path, nargs="?", default=STATE, help="where everything is kept")
    parser.add_argument(
        "--allow-memory-file-system", action="store_true", help="whether that folder may be forgotten at a restart"
    )
    said = parser.parse_args()
    try:
        sys.exit(asyncio.run(run(said.folder, in_memory_allowed=said.allow_memory_file_system)))
    except (StartFailed, HostError) as error:
        sys.exit(f"make run: {error}")


if __name__ == "__main__":
    main()
