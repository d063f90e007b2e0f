"""How long a baker waits for a signature while others flood the host: alone, and under each flood.

`python -m benchmarks.host_floods [--only WORD]` starts `enclave-signer` and `enclave-host serve` with marks on a real
disk. One client, the baker, asks for attestations of rising levels with a tz1 key, each so many milliseconds after the
one before. Another process floods (`benchmarks.flooder`), from the same address. The table has the baker's times, its
answers that were no signatures, how often the host lost its link to the enclave, and the flood's answers by status.
"""

import argparse
import base64
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from benchmarks.machine import machine_line
from benchmarks.turns import quantile
from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.messages import KeyType, PublicKey, SigningVersion
from enclave_signer.tezos import encode_public_key, encode_signature, public_key_hash
from host_backend.authentication import authentication_bytes
from tests.doubles.host_process import (
    BAKER,
    VAULT,
    Host,
    key_file,
    run_command,
    running_host,
    stored_hashes,
    write_config,
)
from tests.doubles.known_keys import attestation
from tests.doubles.processes import Program, running_local_enclave
from tests.doubles.wire import WireClient

#: Seconds of a flood before the baker is measured, and from one signal, or new connection, to the next.
WARM_UP_S = 1.0
SIGNALS_S = 0.1
CONNECTIONS_S = 1.0
#: Connections that say nothing: as many as the host has places.
SILENT = 4096
#: Seconds until a host that is not ready is asked again.
READY_AGAIN_S = 0.2
#: Seconds that the baker waits for an answer.
PATIENCE_S = 30.0
#: Calls to the enclave before its answers are read.
PIPELINE = 100
CONSENSUS = "{allow: {block: , preattestation: , attestation: }}"
OPERATIONS = "{allow: {generic: [transaction], pack: }}"
WATERMARK = "{driver: file}"


@dataclass
class Served:
    """A host that serves, and what floods need to know of it."""

    host: Host
    baker: str
    #: Keys whose policies allow consensus messages only, and operations only.
    consensus: str
    operations: str
    #: Signs the baker's requests, where requests are signed.
    client: SigningKey | None
    level: int = 0

    def query(self, pkh: str, message: bytes, client: SigningKey | None) -> str:
        """Return what a path needs for a client's signature; nothing where requests are not signed."""
        if client is None:
            return ""
        signed = client.sign(authentication_bytes(pkh, message), SigningVersion.LATEST)
        return f"?authentication={encode_signature(signed)}"

    def request(self, pkh: str, message: bytes, client: SigningKey | None = None) -> bytes:
        """Return the bytes of a request for a signature."""
        body = b'"%b"' % message.hex().encode()
        path = f"/keys/{pkh}{self.query(pkh, message, client)}".encode()
        return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)

    def links_lost(self) -> int:
        """Return how often the host has lost its link to the enclave."""
        return self.host.log.count("the enclave did not answer in time")


@dataclass
class Row:
    """What the baker saw, in seconds, and how the flood was answered."""

    name: str
    took: list[float] = field(default_factory=list)
    refused: int = 0
    links_lost: int = 0
    flood: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """Return a line of the table."""
        times = [quantile(self.took, part) * 1e3 for part in (0.5, 0.99)] + [max(self.took) * 1e3]
        flood = " ".join(f"{count}x{status}" for status, count in sorted(self.flood.items()))
        numbers = " ".join(f"{each:>8.1f}" for each in times)
        return f"{self.name:<34} {len(self.took):>5} {numbers} {self.refused:>8} {self.links_lost:>5}  {flood}"


HEAD = f"{'':<34} {'asked':>5} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'refused':>8} {'links':>5}  flood"


class Baker:
    """Asks for one signature after the other on one connection."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stream: socket.socket | None = None

    def ask(self, row: Row) -> None:
        """Have an attestation signed, on a new connection if need be."""
        served = self._served
        served.level += 1
        request = served.request(served.baker, attestation(served.level), served.client)
        asked = time.perf_counter()
        try:
            if self._stream is None:
                self._stream = socket.create_connection(("127.0.0.1", served.host.port), PATIENCE_S)
            self._stream.sendall(request)
            answer = b""
            while not answer.endswith((b"}\n", b"]\n")):
                came = self._stream.recv(65536)
                if not came:
                    raise ConnectionResetError
                answer += came
        except OSError:
            answer = b""
            self.leave()
        row.took.append(time.perf_counter() - asked)
        row.refused += not answer.startswith(b"HTTP/1.1 200 ")

    def leave(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _large(first: int) -> bytes:
    """Return a message of 32 KiB that takes long to read: a packed list of integers."""
    count = (32 * 1024 - 6) // 2
    return bytes([first, 2]) + (2 * count).to_bytes(4, "big") + b"\0\1" * count


def _stranger() -> SigningKey:
    return curve(KeyType.P256).open(curve(KeyType.P256).generate())


def get(path: str) -> Callable[[Served], bytes]:
    """Make a flood of requests for a path."""
    return lambda _: f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@dataclass(frozen=True)
class Flood:
    """What another process does meanwhile."""

    name: str
    #: Makes the bytes of its request; None: no flood.
    request: Callable[[Served], bytes] | None = None
    connections: int | None = None
    utility: bool = False
    #: Whether the host is told to read its configuration anew, again and again.
    signals: bool = False
    #: Whether each connection asks once and then says nothing, and the baker comes anew for each of its requests.
    silent: bool = False


ALONE = Flood("alone")
ON_OPEN = (
    ALONE,
    Flood("large, consensus only", lambda served: served.request(served.consensus, _large(5))),
    Flood("large, operations", lambda served: served.request(served.operations, _large(5))),
    Flood("large, malformed", lambda served: served.request(served.operations, _large(3))),
    Flood("silent strangers", get("/mode"), connections=SILENT, silent=True),
)
ON_MANY_KEYS = (
    ALONE,
    Flood("GET /metrics", get("/metrics"), utility=True),
    Flood("GET /known_keys", get("/known_keys")),
    Flood("SIGHUP in a row", signals=True),
)
ON_SIGNED = (
    ALONE,
    Flood("wrong signatures", lambda served: served.request(served.baker, attestation(1), _stranger())),
)


def measure(served: Served, flood: Flood, options: argparse.Namespace) -> Row:
    """Return what the baker sees during a flood."""
    row = Row(flood.name, links_lost=-served.links_lost())
    baker, process = Baker(served), None
    if flood.request is not None:
        process = _start(served, flood, options)
        time.sleep(WARM_UP_S)
    over = threading.Event()
    signals = threading.Thread(target=_signal, args=(served.host, over))
    if flood.signals:
        signals.start()
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        baker.ask(row)
        if flood.silent:
            baker.leave()
        time.sleep(CONNECTIONS_S if flood.silent else options.pause / 1e3)
    over.set()
    baker.leave()
    if process is not None:
        row.flood = json.loads(process.communicate()[0])
    row.links_lost += served.links_lost()
    return row


def _start(served: Served, flood: Flood, options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    assert flood.request is not None
    port = served.host.utility_port if flood.utility else served.host.port
    numbers = map(str, (port, flood.connections or options.connections, options.seconds + WARM_UP_S))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.flooder", *numbers, "once" if flood.silent else "again"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(flood.request(served))
    process.stdin.close()
    process.stdin = None
    return process


def _signal(host: Program, over: threading.Event) -> None:
    while not over.wait(SIGNALS_S):
        host.process.send_signal(signal.SIGHUP)


def _generate(address: tuple[str, int], count: int) -> Iterator[dict[str, str]]:
    """Yield entries of the key file for so many new tz1 keys."""
    with WireClient(address) as client:
        for _ in range(0, count, PIPELINE):
            for _ in range(PIPELINE):
                client.send({"Generate": "Ed25519"})
            for _ in range(PIPELINE):
                made = client.receive()["Ok"]
                assert isinstance(made, dict)
                pkh = public_key_hash(PublicKey(KeyType.ED25519, made["public_key"]["Ed25519"]))
                blob = base64.b64encode(made["encrypted_private_key"]).decode()
                yield {"public_key_hash": pkh, "encrypted_private_key": blob}


@contextmanager
def serving(folder: Path, *, keys: int = 0, authorized: int = 0) -> Iterator[Served]:
    """Run both programs.

    Args:
        folder: An empty one.
        keys: Further keys that are listed.
        authorized: P-256 keys that may sign requests, the baker's the last of them; 0: requests are not signed.
    """
    clients = [_stranger() for _ in range(authorized)]
    with running_local_enclave(folder / "sealing.key") as enclave:
        config = write_config(folder, enclave.port, watermark=WATERMARK)
        made = run_command("generate", "-c", config, "-v", VAULT, "-n", "3")
        assert made.code == 0, made.stderr
        three = stored_hashes(config)
        if keys:
            entries = json.loads(key_file(config).read_text()) + list(_generate(enclave.address, keys))
            key_file(config).write_text(json.dumps(entries))
        policies = dict.fromkeys(stored_hashes(config), BAKER) | dict(
            zip(three[1:], (CONSENSUS, OPERATIONS), strict=True)
        )
        write_config(folder, enclave.port, policies, watermark=WATERMARK)
        if clients:
            listed = ", ".join(encode_public_key(client.public_key) for client in clients)
            config.write_text(config.read_text().replace("server: {", f"server: {{authorized_keys: [{listed}], "))
        with running_host(config) as host:
            while host.health()[0] != HTTPStatus.OK:
                time.sleep(READY_AGAIN_S)
            baker, consensus, operations = three
            yield Served(host, baker, consensus, operations, clients[-1] if clients else None)


def _allow_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * SILENT + 1024), hard))


def main() -> None:
    """Print a table with one line for each flood."""
    parser = argparse.ArgumentParser(description="Measure a baker's signatures while the host is flooded.")
    parser.add_argument("--only", default="", metavar="WORD", help="floods whose setup or name has this word")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each flood (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="of a flood (default: %(default)s)")
    parser.add_argument("--pause", type=float, default=10.0, help="ms, of the baker (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=1000, help="where there are many (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    options = parser.parse_args()
    _allow_descriptors()
    setups: tuple[tuple[str, dict[str, int], Sequence[Flood]], ...] = (
        ("open", {}, ON_OPEN),
        (f"{options.keys} keys", {"keys": options.keys}, ON_MANY_KEYS),
        ("10 authorized", {"authorized": 10}, ON_SIGNED),
        ("100 authorized", {"authorized": 100}, ON_SIGNED),
    )
    print(f"{machine_line()}; {os.cpu_count()} cores\n{HEAD}")
    for name, wanted, floods in setups:
        chosen = [flood for flood in floods if options.only in f"{name}: {flood.name}"]
        if not chosen:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as folder, serving(Path(folder), **wanted) as served:
            for flood in chosen:
                row = measure(served, flood, options)
                row.name = f"{name}: {flood.name}"
                print(row.line(), flush=True)


if __name__ == "__main__":
    main()
