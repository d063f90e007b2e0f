"""Any bytes at a real host's socket for Octez: each gets answers, or the connection ends; then others are answered still.

`python -m tests.endurance.octez_frames 1000000` goes on until so many were answered, or ended their connections.
"""

import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests.doubles.host_process import BAKER, import_keys, write_config
from tests.doubles.known_keys import FOUR, attestation, block, transaction
from tests.doubles.octez_client import tagged
from tests.doubles.octez_socket import OctezSocket, SignerError, dynamic, framed, signing_request, value_of
from tests.doubles.processes import running, running_local_enclave

#: Sent ahead on one connection.
AHEAD = 50


def changed(source: random.Random, good: list[bytes]) -> bytes:
    """Return the payload of a frame: a request with some bytes changed, cut off or added, or any bytes."""
    payload = bytearray(source.choice(good))
    for _ in range(source.choice((0, 1, 1, 2, 4))):
        payload[source.randrange(len(payload))] = source.randrange(256)
    if source.random() < 0.1:
        del payload[source.randrange(1, len(payload) + 1) :]
    if source.random() < 0.05:
        payload += source.randbytes(source.randrange(1, 100))
    return source.randbytes(source.randrange(1, 40)) if source.random() < 0.01 else bytes(payload)


def send(path: Path, payloads: list[bytes], rest: bytes) -> tuple[int, int]:
    """Send frames on one connection, and a part of one; return how many were values, and errors, before it ended."""
    values = errors = 0
    with OctezSocket(path) as stream, suppress(ConnectionError, EOFError):
        stream.send(b"".join(map(framed, payloads)) + rest)
        for _ in payloads:
            try:
                value_of(stream.read())
                values += 1
            except SignerError:
                errors += 1
    return values, errors


def run(path: Path, count: int) -> None:
    source = random.Random(count)
    keys = [key.pkh for key in FOUR]
    good = [b"\x02", b"\x06", *(b"\x01" + tagged(pkh) for pkh in keys), *(b"\x05" + tagged(pkh) for pkh in keys)]
    good += [b"\x03" + tagged(keys[0]) + dynamic(bytes(4)), b"\x07" + tagged(keys[3]) + b"\x00"]
    good += [
        signing_request(pkh, message) for pkh in keys[:3] for message in (block(1), attestation(1), transaction(1))
    ]
    values = errors = sent = connections = 0
    began = time.perf_counter()
    while values + errors + connections < count:
        rest = source.randbytes(source.randrange(3))
        found = send(path, [changed(source, good) for _ in range(AHEAD)], rest)
        values, errors, connections, sent = values + found[0], errors + found[1], connections + 1, sent + AHEAD
    seconds = time.perf_counter() - began
    with OctezSocket(path) as stream:
        assert stream.ask(b"\x02") == b"\x00"
    print(
        f"{sent} frames sent in {seconds:.0f} s: {values} values, {errors} errors, "
        f"and {connections} connections, most of which ended at a frame that was no request"
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "socket"
        with running_local_enclave(folder / "sealing.key") as enclave:
            config = write_config(folder, enclave.port, {key.pkh: BAKER for key in FOUR})
            config.write_text(
                config.read_text().replace("utility_address", f"octez: {{unix: {path}}}, utility_address")
            )
            import_keys(config, *FOUR)
            # Its lines would be kept, a million of them.
            command = [sys.executable, "-m", "host_backend", "serve", "-c", str(config), "--log", "error"]
            with running(command) as host:
                while not path.exists():
                    # It logs errors alone, so no line tells when it listens.
                    assert host.process.poll() is None, host.log
                    time.sleep(0.1)
                run(path, count)
                assert host.stop() == 0
                assert host.log == "", host.log[:2000]


if __name__ == "__main__":
    main()
