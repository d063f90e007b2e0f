"""Signatures over HTTP: how many a second, and how long one takes, through both programs with marks on a real disk.

`python -m benchmarks.host [--old CHECKOUT]` starts `enclave-signer` and `enclave-host serve`, and asks for attestations
of rising levels, so that each one moves a mark. Every client has a connection and an Ed25519 key of its own. With
another checkout of this repository, the programs of both run side by side, and are asked in turn.
"""

import argparse
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.machine import machine_line
from benchmarks.turns import ROOT, environment_of, in_turn, processor_seconds, quantile, ratio_text, sealing_key_in
from tests.doubles.host_process import BAKER, VAULT, stored_hashes, write_config
from tests.doubles.known_keys import attestation
from tests.doubles.processes import Program, running

#: Clients that ask at once.
CLIENTS = (1, 16)
#: Both the present store and that of version 0.1.
_WATERMARK = "{driver: file}"


class Client:
    """Asks with one key for one signature after the other."""

    def __init__(self, port: int, pkh: str) -> None:
        self.port = port
        self.head = f"POST /keys/{pkh} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        self.level = 0
        self.asked = 0.0
        self.answer = b""

    def connect(self) -> socket.socket:
        """Connect again, as a host closes connections that are silent for some seconds."""
        self.stream = socket.create_connection(("127.0.0.1", self.port))
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.stream

    def ask(self) -> None:
        """Send the next request."""
        self.level += 1
        body = f'"{attestation(self.level).hex()}"'.encode()
        self.answer = b""
        self.asked = time.perf_counter()
        self.stream.sendall(self.head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def take(self) -> float | None:
        """Take what has come; when it is all of the answer, return how long it took in seconds."""
        came = self.stream.recv(65536)
        self.answer += came
        if came and not self.answer.endswith((b"}\n", b"]\n")):
            return None
        if not self.answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"not signed: {self.answer.decode() or 'the connection was closed'}")
        return time.perf_counter() - self.asked


class Measured:
    """The clients of one checkout's programs, and, by their number, a list of seconds for each turn."""

    def __init__(self, name: str, host: Program, clients: Sequence[Client]) -> None:
        self.name = name
        self.host = host
        self.clients = clients
        self.turns: dict[int, list[list[float]]] = {count: [] for count in CLIENTS}
        self.rates: dict[int, list[float]] = {count: [] for count in CLIENTS}
        #: The processor's time that the host took for a request, in each turn.
        self.busy: dict[int, list[float]] = {count: [] for count in CLIENTS}

    def measure(self, seconds: float) -> None:
        """Take one turn."""
        for count in CLIENTS:
            took: list[float] = []
            with selectors.DefaultSelector() as selector, ExitStack() as stack:
                for client in self.clients[:count]:
                    selector.register(stack.enter_context(client.connect()), selectors.EVENT_READ, client)
                    client.ask()
                begun, busy = time.perf_counter(), processor_seconds(self.host)
                while (now := time.perf_counter()) < begun + seconds or selector.get_map():
                    for key, _ in selector.select():
                        answered = key.data.take()
                        if answered is None:
                            continue
                        took.append(answered)
                        if now < begun + seconds:
                            key.data.ask()
                        else:
                            selector.unregister(key.fileobj)
            self.busy[count].append((processor_seconds(self.host) - busy) / len(took))
            self.turns[count].append(took)
            self.rates[count].append(len(took) / (now - begun))

    def medians(self, count: int) -> list[float]:
        """Return the median of each turn, in seconds."""
        return [median(took) for took in self.turns[count]]

    def line(self, count: int) -> str:
        """Return a line of the table."""
        took = [seconds for turn in self.turns[count] for seconds in turn]
        p50, p99 = quantile(took, 0.5) * 1e3, quantile(took, 0.99) * 1e3
        rate, busy = median(self.rates[count]), median(self.busy[count]) * 1e3
        return f"{count:>7} {self.name:<5} {rate:>10.0f} {p50:>8.3f} {p99:>8.3f} {busy:>8.3f}"


def port_of(program: Program, listening: str) -> int:
    """Wait until a program says that it is listening on a port, and return the port."""
    return int(program.wait_for(listening + r" on 127\.0\.0\.1:(\d+)")[1])


@contextmanager
def serving(name: str, checkout: Path, folder: Path) -> Iterator[Measured]:
    """Run both programs of a checkout, with a client for each of their keys."""
    folder.mkdir()
    environment = environment_of(checkout)
    sealing_key = ("--sealing-key", str(sealing_key_in(folder)))
    enclave = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0", *sealing_key]
    with running(enclave, environment) as daemon, ExitStack() as stack:
        port = port_of(daemon, "listening")
        config = write_config(folder, port, watermark=_WATERMARK)
        host = [sys.executable, "-m", "host_backend"]
        generate = [*host, "generate", "-c", str(config), "-v", VAULT, "-n", str(max(CLIENTS))]
        subprocess.run(generate, env={**os.environ, **environment}, capture_output=True, check=True)
        policies = dict.fromkeys(stored_hashes(config), BAKER)
        write_config(folder, port, policies, watermark=_WATERMARK)
        serve = stack.enter_context(running([*host, "serve", "-c", str(config)], environment))
        port = port_of(serve, '"HTTP server is listening for connections')
        yield Measured(name, serve, [Client(port, pkh) for pkh in policies])


def main() -> None:
    """Print one line per number of clients and checkout, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure signatures over HTTP.")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--turns", type=int, default=10, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number of clients (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory(dir=options.folder) as name, ExitStack() as stack:
        folder = Path(name)
        measured = [stack.enter_context(serving("this", ROOT, folder / "this"))]
        if options.old:
            measured.append(stack.enter_context(serving("other", options.old.resolve(), folder / "other")))
        in_turn(measured, options.turns, lambda one: one.measure(options.seconds))
    print(f"{'clients':>7} {'':<5} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8}")
    for count in CLIENTS:
        for one in measured:
            print(one.line(count))
        if options.old:
            this, other = measured
            rate = ratio_text(this.rates[count], other.rates[count])
            p50 = ratio_text(this.medians(count), other.medians(count))
            busy = ratio_text(this.busy[count], other.busy[count])
            print(f"{'':>7} this : other, rate {rate}, p50 {p50}, CPU {busy}")


if __name__ == "__main__":
    main()
