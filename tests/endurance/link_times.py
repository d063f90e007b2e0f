"""Measures what the link to the enclave costs: `python -m tests.endurance.link_times`.

- 1 000 keys, three of them damaged, restored while the sealer needs 50 ms for each.
- The slowest of the signatures that are made while a sealer needs 5 s to make a key, and to import one.
- An enclave killed while a host signs, and started again on its port: the first signature after the port is back.
"""

import asyncio
import http.client
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from enclave_signer.curves import curve
from enclave_signer.protocol import codec
from enclave_signer.protocol.messages import KeyType
from enclave_signer.tezos import parse_secret_key, public_key_hash
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.keystore.base import StoredKey
from host_backend.vault.vault import open_vault
from tests.doubles.host_process import BAKER, Host, import_keys, running_host, write_config
from tests.doubles.known_keys import FOUR, transaction
from tests.doubles.memory_keys import MemoryKeys
from tests.doubles.processes import running_local_enclave, running_slow_enclave

TZ1, *_, TZ4 = FOUR
KEYS = 1000
DAMAGED = (17, 500, 999)
SEALER_MS = 50
#: To seal a key and to open it again, each half.
SLOW_SEALER_MS = 2500
RESTARTS = 10


def many_keys(count: int, damaged: Sequence[int]) -> MemoryKeys:
    """Return a store of new keys, sealed by nothing, some of them damaged."""
    stored = []
    for number in range(count):
        private_key = curve(KeyType.ED25519).generate()
        public_key = curve(KeyType.ED25519).open(private_key).public_key
        blob = b"damaged %d" % number if number in damaged else codec.encode_private_key(private_key)
        stored.append(StoredKey(public_key_hash(public_key), blob))
    return MemoryKeys(*stored)


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of the keys of a store."""

    seconds: float
    served: int
    named: list[str]


async def restore(port: int, keys: MemoryKeys) -> Restored:
    """Open all keys of a store, and sign with each that is in service."""
    started = time.monotonic()
    async with open_vault(keys, Endpoint(Address("127.0.0.1", port))) as vault:
        seconds = time.monotonic() - started
        for key in vault.keys:
            await vault.sign(key.pkh, b"message")
        return Restored(seconds, len(vault.keys), list(vault.quarantined))


async def sign_beside_slow_keys(port: int) -> tuple[float, float, int]:
    """Make a key and import one while signing; return how long that took, the slowest signature in ms, and how many."""
    blob = codec.encode_private_key(parse_secret_key(TZ1.secret))
    async with open_vault(MemoryKeys(StoredKey(TZ1.pkh, blob)), Endpoint(Address("127.0.0.1", port))) as vault:
        started = time.monotonic()
        provisioning = vault.provisioning
        made = asyncio.gather(
            provisioning.generate(KeyType.ED25519), provisioning.import_key(parse_secret_key(TZ4.secret))
        )
        times = []
        while not made.done():
            asked = time.monotonic()
            await vault.sign(TZ1.pkh, b"message")
            times.append(time.monotonic() - asked)
        generated, (imported, _) = await made
        for key in (generated, imported):
            await vault.sign(key.pkh, b"message")
        return time.monotonic() - started, max(times) * 1e3, len(times)


def sign_until(stop: threading.Event, host: Host) -> None:
    """Ask for signatures without a pause."""
    number = 0
    while not stop.is_set():
        number += 1
        with suppress(OSError, http.client.HTTPException):
            host.sign(TZ1.pkh, transaction(number))


def restarts(folder: Path, count: int) -> list[float]:
    """Kill and start an enclave while a host signs; return the milliseconds from its port to a signature."""
    times = []
    stop = threading.Event()
    with running_local_enclave(folder / "sealing.key") as first:
        port = first.port
        config = write_config(folder, port, {key.pkh: BAKER for key in FOUR})
        import_keys(config, *FOUR)
        with running_host(config) as host:
            signing = threading.Thread(target=sign_until, args=(stop, host))
            signing.start()
            first.process.kill()
            first.process.wait()
            for number in range(count):
                # Long enough away that an idle host would look for it seldom.
                stop.wait(0.5 * number)
                with running_local_enclave(folder / "sealing.key", "--listen", f"127.0.0.1:{port}"):
                    started = time.monotonic()
                    while host.sign(TZ1.pkh, transaction(1 << 40 | number)).status != 200:
                        pass
                    times.append((time.monotonic() - started) * 1e3)
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    raise SystemExit("the enclave is still there")
            stop.set()
            signing.join()
    return times


def main() -> None:
    """Measure and print."""
    with running_slow_enclave(SEALER_MS) as enclave:
        restored = asyncio.run(restore(enclave.port, many_keys(KEYS, DAMAGED)))
    print(
        f"{KEYS} keys, {SEALER_MS} ms each: ready in {restored.seconds:.2f} s; {restored.served} sign, {restored.named}"
    )
    with running_slow_enclave(SLOW_SEALER_MS) as enclave:
        took_s, slowest_ms, count = asyncio.run(sign_beside_slow_keys(enclave.port))
    print(
        f"one key made and one imported in {took_s:.1f} s: the slowest of {count} signatures meanwhile took {slowest_ms:.1f} ms"
    )
    with tempfile.TemporaryDirectory(prefix="link-times-") as folder:
        times = restarts(Path(folder), RESTARTS)
    print(
        f"enclave killed {RESTARTS} times: signed again {', '.join(f'{ms:.0f}' for ms in times)} ms after its port was back"
    )


if __name__ == "__main__":
    main()
