"""What a number of keys costs: memory of both programs, the file of marks, the time until all are open, and the rate.

`python -m benchmarks.capacity [--keys N …]` starts both programs with as many keys, tz1 or tz4, has each of up to 1000 of
them sign an attestation, and then sixteen clients ask for signatures for a few seconds, each by a key of its own.
"""

import argparse
import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.host import Client, Measured
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import ROOT, environment_of, sealing_key_in
from enclave_signer.curves import curve
from enclave_signer.protocol.key_types import KeyType
from enclave_signer.sealing.local import LocalSealer
from enclave_signer.tezos import public_key_hash
from tests.doubles.host_process import BAKER, Host, key_file, store_file, write_config
from tests.doubles.known_keys import attestation
from tests.doubles.processes import Enclave, kept

#: Clients at once, and keys that sign before the memory is looked at.
CLIENTS, SIGNERS = 16, 1000
MEGABYTE = 1e6


def keys_in(folder: Path, config: Path, key_type: KeyType, number: int) -> list[str]:
    """Seal new keys as the enclave does, put them where the host keeps them, and return their hashes."""
    sealer, kind = LocalSealer((folder / "sealing.key").read_bytes()), curve(key_type)

    async def entry() -> dict[str, str]:
        private_key = kind.generate()
        public_key = kind.open(private_key).public_key
        blob = base64.b64encode(await sealer.seal(private_key, public_key)).decode()
        return {"public_key_hash": public_key_hash(public_key), "encrypted_private_key": blob}

    async def entries() -> list[dict[str, str]]:
        return [await entry() for _ in range(number)]

    stored = asyncio.run(entries())
    key_file(config).parent.mkdir()
    key_file(config).write_text(json.dumps(stored))
    return [entry["public_key_hash"] for entry in stored]


@contextmanager
def running_enclave(folder: Path, *arguments: str, checkout: Path = ROOT) -> Iterator[Enclave]:
    """Run the daemon of a checkout with the local sealer, in an interpreter of its own."""
    command = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0"]
    command += ["--sealing-key", str(sealing_key_in(folder)), *arguments]
    with kept(Enclave(command, environment_of(checkout))) as enclave:
        yield enclave


@contextmanager
def closing_host(host: Host) -> Iterator[Host]:
    """Give a host when it listens; kill it at the end."""
    try:
        host.ready()
        yield host
    finally:
        host.discard()


def line(folder: Path, key_type: KeyType, number: int, seconds: float) -> str:
    """Return a line of the table."""
    with running_enclave(folder) as enclave:
        config = write_config(folder, enclave.port, watermark="{driver: file}")
        pkhs = keys_in(folder, config, key_type, number)
        write_config(folder, enclave.port, dict.fromkeys(pkhs, BAKER), watermark="{driver: file}")
        made = [sys.executable, "-m", "host_backend", "watermark", "init", "-c", str(config)]
        subprocess.run(made, capture_output=True, check=True)
        begun = time.perf_counter()
        with closing_host(Host(config, "--no-list", environment=environment_of(ROOT))) as host:
            # 503 until the keys are open.
            while host.health()[0] != 200:
                time.sleep(0.05)
            ready_s = time.perf_counter() - begun
            for pkh in pkhs[:SIGNERS]:
                assert host.sign(pkh, attestation(1)).status == 200
            clients = [Client(host.port, pkh) for pkh in pkhs[:CLIENTS]]
            for client in clients:
                client.level = 1
            measured = Measured("", host, clients)
            measured.measure(seconds)
            rates = " ".join(f"{measured.rates[count][0]:>8.0f}" for count in measured.rates)
            memory = " ".join(f"{each.resident_bytes() / MEGABYTE:>10.0f}" for each in (host, enclave))
            marks = store_file(config).stat().st_size / MEGABYTE
            return f"{key_type.facts.address:>4} {number:>6} {memory} {marks:>8.1f} {ready_s:>8.1f} {rates}"


def main() -> None:
    """Print one line per kind and number of keys."""
    parser = argparse.ArgumentParser(description="Measure what a number of keys costs.")
    parser.add_argument("--keys", type=int, nargs="+", default=[16, 100, 1000, 10_000], help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each number of clients (default: %(default)s)")
    add_folder_option(parser)
    options = parser.parse_args()
    print(machine_line(options.folder))
    print(
        f"{'':>4} {'keys':>6} {'host MB':>10} {'enclave MB':>10} {'marks MB':>8} {'ready s':>8} {'1 client':>8} {'16':>8}"
    )
    for key_type in (KeyType.ED25519, KeyType.BLS):
        for number in options.keys:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                print(line(Path(folder), key_type, number, options.seconds), flush=True)


if __name__ == "__main__":
    main()
