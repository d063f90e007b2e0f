"""`make run`: both programs on this machine, one key, one line to paste; Ctrl-C stops them."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from host_backend.errors import HostError
from quickstart.local_signer import LocalSigner, StartFailed, running_signer
from quickstart.messages import attestation

STATE = Path(".state")


async def run(folder: Path, *, in_memory_allowed: bool) -> int:
    """Run until a signal, or until a program ends; return the exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_signer(folder, ["tz4"], in_memory_allowed=in_memory_allowed) as signer:
        introduce(signer)
        ended = asyncio.create_task(signer.wait_ended())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        code = 0 if stop.is_set() else 1
        print("\nStopping." if stop.is_set() else f"A program ended by itself: see the logs in {signer.folder}.")
        ended.cancel()
        stopped.cancel()
    print(f"Stopped. Keys and marks stay in {folder}/ for the next run.")
    return code


def introduce(signer: LocalSigner) -> None:
    """Say what was done, and how to sign."""
    (pkh, *_) = signer.keys
    body = json.dumps(attestation(1).hex())
    print(f"enclave   holds the keys; they are sealed by {signer.folder / 'sealing.key'}: fine for a laptop only")
    print(f"host      {signer.url}   health: {signer.utility_url}/healthz")
    print(
        f"key       {pkh} ({'generated inside the enclave just now' if signer.first_run else 'kept from an earlier run'})"
    )
    print(f"files     {signer.folder} (configuration, sealed keys, watermarks, logs)")
    print("\nSign an attestation:\n")
    print(f"    curl -d '{body}' {signer.url}/keys/{pkh}\n")
    print("Ctrl-C stops both programs.", flush=True)


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
