"""How long a baker waits for a signature while others flood the host: alone, and under each flood.

`python -m benchmarks.host_floods [--only WORD] [--proxy nginx|haproxy]` starts both programs (`benchmarks.flooded_host`).
One client, the baker, asks for attestations of rising levels with a tz1 key, each so many milliseconds after the one
before. Another process floods (`benchmarks.flooder`), from the same address; if a proxy is named, both come through it,
and the host believes whom it names. The table has the baker's times, its answers that were no signatures, how often the
host lost its link to the enclave, and the flood's answers by status.
"""

import argparse
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.flooded_host import PROXIES, Served, serving, stranger
from benchmarks.flooder import CLIENT, LENGTH
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import quantile
from tests.doubles.known_keys import attestation
from tests.doubles.processes import Program

#: Seconds of a flood before the baker is measured, and from one signal, or new connection, to the next.
WARM_UP_S = 1.0
SIGNALS_S = 0.1
CONNECTIONS_S = 1.0
#: Connections that say nothing: as many as the host has places.
SILENT = 4096
#: Seconds that the baker waits for an answer.
PATIENCE_S = 30.0


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
                self._stream = socket.create_connection(("127.0.0.1", served.port), PATIENCE_S, (CLIENT, 0))
            self._stream.sendall(request)
            answer = b""
            while not _whole(answer):
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


def _whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = LENGTH.search(head + end)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def _large(first: int) -> bytes:
    """Return a message of 32 KiB that takes long to read: a packed list of integers."""
    count = (32 * 1024 - 6) // 2
    return bytes([first, 2]) + (2 * count).to_bytes(4, "big") + b"\0\1" * count


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
    #: Whether the host is asked to reload its configuration again and again.
    signals: bool = False
    #: Whether each connection asks once and then is silent, and the baker connects again for each of its requests.
    silent: bool = False


ALONE = Flood("alone")
ON_OPEN = (
    ALONE,
    Flood("large, consensus only", lambda served: served.request(served.consensus, _large(5))),
    Flood("large, operations", lambda served: served.request(served.operations, _large(5))),
    Flood("large, malformed", lambda served: served.request(served.operations, _large(3))),
    Flood("small, refused", lambda served: served.request(served.consensus, b"\x05\x02\0\0\0\x02\0\x01")),
    Flood("small, malformed", lambda served: served.request(served.consensus, b"\x03\x02")),
    Flood("GET /keys/...", lambda served: get(f"/keys/{served.baker}")(served)),
    Flood("GET /mode", get("/mode")),
    Flood("no such path", get("/nothing")),
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
    Flood("wrong signatures", lambda served: served.request(served.baker, attestation(1), stranger())),
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
    port = served.utility_port if flood.utility else served.port
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
    parser.add_argument("--proxy", choices=PROXIES, help="in front of the host; by default there is none")
    add_folder_option(parser)
    options = parser.parse_args()
    _allow_descriptors()
    setups: tuple[tuple[str, dict[str, int], Sequence[Flood]], ...] = (
        ("open", {}, ON_OPEN),
        (f"{options.keys} keys", {"keys": options.keys}, ON_MANY_KEYS),
        ("10 authorized", {"authorized": 10}, ON_SIGNED),
        ("100 authorized", {"authorized": 100}, ON_SIGNED),
    )
    behind = "" if options.proxy is None else f"; behind {options.proxy}"
    print(f"{machine_line(options.folder)}; {os.cpu_count()} cores{behind}\n{HEAD}")
    for name, wanted, floods in setups:
        chosen = [flood for flood in floods if options.only in f"{name}: {flood.name}"]
        if not chosen:
            continue
        with (
            tempfile.TemporaryDirectory(dir=options.folder) as folder,
            serving(Path(folder), **wanted, proxy=options.proxy) as served,
        ):
            for flood in chosen:
                row = measure(served, flood, options)
                row.name = f"{name}: {flood.name}"
                print(row.line(), flush=True)


if __name__ == "__main__":
    main()
