"""Signatures over HTTP: how many a second, and how long one takes, through both programs with marks on a real disk.

`python -m benchmarks.host [--old CHECKOUT]` starts `enclave-signer` and `enclave-host serve` for each type of keys, and
asks for attestations of rising levels, so that each one moves a mark. Every client has a connection and keys of its own.
With another checkout of this repository, the programs of both run side by side, and are asked in turn. `--client` names a
compiled client that asks instead: `benchmarks.client` says how it is asked.
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

from benchmarks import client
from benchmarks.machine import machine_line
from benchmarks.turns import (
    ERRORS,
    LATENCY_HEAD,
    ROOT,
    environment_of,
    in_turn,
    latency_columns,
    processor_seconds,
    ratio_text,
    sealing_key_in,
)
from tests.doubles.host_process import BAKER, CONFIG_NAME, VAULT, stored_hashes, write_config
from tests.doubles.known_keys import attestation
from tests.doubles.processes import Program, running

#: Clients that ask at once.
CLIENTS = (1, 16)
#: Types of keys, as `generate` calls them.
TYPES = ("tz1", "tz2", "tz3", "tz4")
#: Keys of one type, shared out among the clients.
KEYS = 100
#: Both the present store and that of version 0.1.
WATERMARK = "{driver: file}"


class Client:
    """Asks for one signature after the other, by each of its keys in turn."""

    def __init__(self, port: int, *pkhs: str) -> None:
        self.port = port
        head = "POST /keys/{} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.pkhs = pkhs
        self.heads = [head.format(pkh).encode() for pkh in pkhs]
        self.place = 0
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
        self.level += self.place == 0
        self.send(self.heads[self.place], attestation(self.level))
        self.place = (self.place + 1) % len(self.heads)

    def send(self, head: bytes, message: bytes) -> None:
        """Send a request with this message."""
        body = f'"{message.hex()}"'.encode()
        self.answer = b""
        self.asked = time.perf_counter()
        self.stream.sendall(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

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

    def __init__(
        self,
        name: str,
        host: Program,
        clients: Sequence[Client],
        counts: Sequence[int] = CLIENTS,
        daemon: Program | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.daemon = daemon
        self.clients = clients
        self.turns: dict[int, list[list[float]]] = {count: [] for count in counts}
        self.rates: dict[int, list[float]] = {count: [] for count in counts}
        #: The processor's time that the host took for a request, in each turn.
        self.busy: dict[int, list[float]] = {count: [] for count in counts}

    def measure(self, seconds: float) -> None:
        """Take one turn."""
        for count in self.turns:
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

    def latencies(self, count: int) -> str:
        """Return the columns of latencies."""
        return latency_columns([seconds for turn in self.turns[count] for seconds in turn])

    def line(self, count: int) -> str:
        """Return a line of the table."""
        rate, busy = median(self.rates[count]), median(self.busy[count]) * 1e3
        return f"{count:>7} {self.name:<5} {rate:>10.0f} {self.latencies(count)} {busy:>8.3f}"


class MeasuredByClient(Measured):
    """The same, where a client of one's own asks."""

    def __init__(self, program: Path, site: Measured) -> None:
        super().__init__(site.name, site.host, site.clients)
        self._program = program
        self._pkhs = [pkh for each in site.clients for pkh in each.pkhs]
        self._level = 1
        self._reports: dict[int, list[client.Report]] = {count: [] for count in self.turns}

    def measure(self, seconds: float) -> None:
        """Take one turn."""
        for count, reports in self._reports.items():
            busy = processor_seconds(self.host)
            asked = ("http", "--conns", count, "--seconds", seconds, "--base", self._level)
            report = client.over_http(self._program, self.clients[0].port, self._pkhs, *asked)
            self._level += client.LEVELS
            self.busy[count].append((processor_seconds(self.host) - busy) / report.count)
            self.rates[count].append(report.rate)
            reports.append(report)

    def medians(self, count: int) -> list[float]:
        """Return the median of each turn, in seconds."""
        return [report.latencies[0] for report in self._reports[count]]

    def latencies(self, count: int) -> str:
        """Return the columns of latencies."""
        return client.columns(self._reports[count])


#: What stands above the lines of `Measured`.
HEAD = f"{'clients':>7} {'':<5} {'requests/s':>10} {LATENCY_HEAD} {'CPU ms':>8}"


def port_of(program: Program, listening: str) -> int:
    """Wait until a program says that it is listening on a port, and return the port."""
    return int(program.wait_for(listening + r" on 127\.0\.0\.1:(\d+)")[1])


def configuration_text(config: Path) -> str:
    """Return what a configuration says, without the keys' lines, which are alike."""
    lines = [line for line in config.read_text().splitlines() if not line.startswith("  tz")]
    return "\n".join(["configuration, all else by default:", *(f"  {line}" for line in lines), f"  policies: {BAKER}"])


@contextmanager
def serving(
    name: str,
    checkout: Path,
    folder: Path,
    key_type: str = "tz1",
    keys: int = max(CLIENTS),
    module: str = "host_backend",
    prefix: Sequence[str] = (),
) -> Iterator[Measured]:
    """Run both programs of a checkout, with clients that share the keys out.

    Args:
        name: Of the checkout, in tables.
        checkout: Whose programs are run.
        folder: Made here, for all their files.
        key_type: Of the keys.
        keys: How many are made.
        module: Run to serve.
        prefix: What stands before both commands, such as a program that watches them.
    """
    folder.mkdir()
    environment = environment_of(checkout)
    sealing_key = ("--sealing-key", str(sealing_key_in(folder)))
    enclave = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0", *sealing_key]
    with running([*prefix, *enclave], environment) as daemon, ExitStack() as stack:
        port = port_of(daemon, "listening")
        config = write_config(folder, port, watermark=WATERMARK)
        host = [sys.executable, "-m", "host_backend"]
        generate = [*host, "generate", "-c", str(config), "-v", VAULT, "-n", str(keys), "-t", key_type]
        subprocess.run(generate, env={**os.environ, **environment}, capture_output=True, check=True)
        pkhs = stored_hashes(config)
        write_config(folder, port, dict.fromkeys(pkhs, BAKER), watermark=WATERMARK)
        command = [*prefix, sys.executable, "-m", module, "serve", "-c", str(config)]
        serve = stack.enter_context(running(command, environment))
        port = port_of(serve, '"HTTP server is listening for connections')
        count = max(CLIENTS)
        clients = [Client(port, *pkhs[place::count]) for place in range(count)]
        yield Measured(name, serve, clients, daemon=daemon)


def measured(
    folder: Path, key_type: str, turns: int, seconds: float, old: Path | None = None, program: Path | None = None
) -> list[Measured]:
    """Measure keys of one type: this checkout, and another one if there is one; `program` asks, if it is given."""
    checkouts = {"this": ROOT, **({"other": old.resolve()} if old else {})}
    with ExitStack() as stack:
        sites = [
            stack.enter_context(serving(name, checkout, folder / f"{name}-{key_type}", key_type, KEYS))
            for name, checkout in checkouts.items()
        ]
        if program:
            sites = [MeasuredByClient(program, site) for site in sites]
        in_turn(sites, turns, lambda one: one.measure(seconds))
    return sites


def main() -> None:
    """Print one line per type of keys, number of clients and checkout, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure signatures over HTTP.")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES, help="of keys (default: all)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number of clients (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    client.add_option(parser)
    options = parser.parse_args()
    print(machine_line(options.folder))
    print(f"{'':<4} {HEAD}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for key_type in options.types:
            each = measured(Path(name), key_type, options.turns, options.seconds, options.old, options.client)
            for count in CLIENTS:
                for one in each:
                    print(f"{key_type:<4} {one.line(count)}", flush=True)
                if options.old:
                    this, other = each
                    rate = ratio_text(this.rates[count], other.rates[count])
                    p50 = ratio_text(this.medians(count), other.medians(count))
                    busy = ratio_text(this.busy[count], other.busy[count])
                    print(f"{'':>12} this : other, rate {rate}, p50 {p50}, CPU {busy}")
        print(ERRORS, configuration_text(Path(name) / f"this-{options.types[0]}" / CONFIG_NAME), sep="\n")


if __name__ == "__main__":
    main()
