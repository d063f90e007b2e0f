"""Signatures over HTTP: how many a second, and how long one takes, through both programs with marks on a real disk.

`python -m benchmarks.host` starts `enclave-signer` and `enclave-host serve` for each type of keys, and asks for attestations
of rising levels, so that each one moves a mark. Every client has a connection and keys of its own. What `benchmarks.turns`
names runs beside it, and is asked in turn; a peer has keys already. `--client` names a compiled client that asks instead:
`benchmarks.client` says how it is asked.
"""

import argparse
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from pathlib import Path
from statistics import median

from benchmarks import client
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import (
    ERRORS,
    LATENCY_HEAD,
    Side,
    add_side_options,
    column,
    environment_of,
    in_turn,
    latency_columns,
    print_ratios,
    processor_seconds,
    sealing_key_in,
    sides,
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

    def __init__(self, port: int, *pkhs: str, host: str = "127.0.0.1", level: int = 0) -> None:
        self.address = host, port
        head = "POST /keys/{} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.pkhs = pkhs
        self.heads = [head.format(pkh).encode() for pkh in pkhs]
        self.place = 0
        self.level = level
        self.asked = 0.0
        self.answer = b""

    def connect(self) -> socket.socket:
        """Connect again, as a host closes connections that are silent for some seconds."""
        self.stream = socket.create_connection(self.address)
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
    """The clients of one side, and, by their number, a list of seconds for each turn."""

    def __init__(
        self,
        name: str,
        host: Program | None,
        clients: Sequence[Client],
        counts: Sequence[int] = CLIENTS,
    ) -> None:
        self.name = name
        self.host = host
        self.clients = clients
        self.turns: dict[int, list[list[float]]] = {count: [] for count in counts}
        self.answered: dict[int, list[int]] = {count: [] for count in counts}
        self.rates: dict[int, list[float]] = {count: [] for count in counts}
        #: The processor's time that the host took for a request, in each turn.
        self.busy: dict[int, list[float]] = {count: [] for count in counts}

    def measure(self, seconds: float, requests: float = inf) -> None:
        """Take one turn, of so many seconds, or of so many requests if those are answered earlier."""
        for count in self.turns:
            took: list[float] = []
            with selectors.DefaultSelector() as selector, ExitStack() as stack:
                for client in self.clients[:count]:
                    selector.register(stack.enter_context(client.connect()), selectors.EVENT_READ, client)
                    client.ask()
                begun, busy = time.perf_counter(), processor_seconds(self.host)
                while selector.get_map():
                    now = time.perf_counter()
                    asking = now < begun + seconds and len(took) < requests
                    for key, _ in selector.select():
                        answered = key.data.take()
                        if answered is None:
                            continue
                        took.append(answered)
                        if asking:
                            key.data.ask()
                        else:
                            selector.unregister(key.fileobj)
            self.busy[count].append((processor_seconds(self.host) - busy) / len(took))
            self.turns[count].append(took)
            self.answered[count].append(len(took))
            self.rates[count].append(len(took) / (now - begun))

    def medians(self, count: int) -> list[float]:
        """Return the median of each turn, in seconds."""
        return [median(took) for took in self.turns[count]]

    def latencies(self, count: int) -> str:
        """Return the columns of latencies."""
        return latency_columns([seconds for turn in self.turns[count] for seconds in turn])

    def line(self, count: int) -> str:
        """Return a line of the table."""
        rate, busy = median(self.rates[count]), column(median(self.busy[count]) * 1e3, 8, 3)
        return f"{count:>7} {self.name:<5} {rate:>10.0f} {self.latencies(count)} {busy}"


class Served(Measured):
    """The clients of a side that runs here."""

    host: Program

    def __init__(self, name: str, host: Program, daemon: Program, clients: Sequence[Client]) -> None:
        super().__init__(name, host, clients)
        self.daemon = daemon


class MeasuredByClient(Measured):
    """The same, where a client of one's own asks."""

    def __init__(self, program: Path, site: Measured) -> None:
        super().__init__(site.name, site.host, site.clients, [*site.turns])
        self._program = program
        self._pkhs = [pkh for each in site.clients for pkh in each.pkhs]
        self._reports: dict[int, list[client.Report]] = {count: [] for count in self.turns}

    def measure(self, seconds: float, requests: float = inf) -> None:  # noqa: ARG002 -- a client counts seconds
        """Take one turn."""
        for count, reports in self._reports.items():
            busy, level = processor_seconds(self.host), max(each.level for each in self.clients) + 1
            asked = ("http", "--conns", count, "--seconds", seconds, "--base", level)
            report = client.over_http(self._program, self.clients[0].address, self._pkhs, *asked)
            for each in self.clients:
                each.level = level + client.LEVELS
            self.busy[count].append((processor_seconds(self.host) - busy) / report.count)
            self.answered[count].append(report.count)
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


def at_peer(side: Side, keys: Path, key_type: str, level: int = 0) -> Measured:
    """Return clients of a peer, that share out the keys of one type whose hashes a file has, a line each."""
    host, port = side.peer_address
    pkhs = [line for line in keys.read_text().split() if line.startswith(key_type)]
    if not pkhs:
        raise SystemExit(f"{keys} has no {key_type} hashes")
    count = min(len(pkhs), max(CLIENTS))
    clients = [Client(port, *pkhs[place::count], host=host, level=level) for place in range(count)]
    return Measured(side.name, None, clients)


@contextmanager
def serving(
    side: Side,
    folder: Path,
    key_type: str = "tz1",
    keys: int = max(CLIENTS),
    module: str = "host_backend",
    prefix: Sequence[str] = (),
) -> Iterator[Served]:
    """Run both programs of a side, with clients that share the keys out.

    Args:
        side: No peer.
        folder: Made here, for all their files.
        key_type: Of the keys.
        keys: How many are made.
        module: Run to serve.
        prefix: What stands before both commands, such as a program that watches them.
    """
    folder.mkdir()
    environment = environment_of(side.checkout)
    sealing_key = ("--sealing-key", str(sealing_key_in(folder)))
    enclave = [sys.executable, "-m", "enclave_signer", "--listen", "127.0.0.1:0", *sealing_key, *side.enclave_arguments]
    with running([*prefix, *enclave], environment) as daemon, ExitStack() as stack:
        port = port_of(daemon, "listening")
        config = write_config(folder, port, watermark=WATERMARK)
        side.configure(config)
        host = [sys.executable, "-m", "host_backend"]
        generate = [*host, "generate", "-c", str(config), "-v", VAULT, "-n", str(keys), "-t", key_type]
        subprocess.run(generate, env={**os.environ, **environment}, capture_output=True, check=True)
        pkhs = stored_hashes(config)
        side.configure(write_config(folder, port, dict.fromkeys(pkhs, BAKER), watermark=WATERMARK))
        command = [*prefix, sys.executable, "-m", module, "serve", "-c", str(config)]
        serve = stack.enter_context(running(command, environment))
        port = port_of(serve, '"HTTP server is listening for connections')
        count = max(CLIENTS)
        clients = [Client(port, *pkhs[place::count]) for place in range(count)]
        yield Served(side.name, serve, daemon, clients)


@contextmanager
def every_side(
    compared: Iterable[Side], folder: Path, key_type: str, keys: int, peer_keys: tuple[Path, int] | None = None
) -> Iterator[list[Measured]]:
    """Run all sides with as many keys of one type each.

    Args:
        compared: The sides.
        folder: There, each has a folder for its files.
        key_type: Of the keys.
        keys: How many ours have.
        peer_keys: What `at_peer` needs to know of a peer: its keys, and the level above which it is asked.
    """
    with ExitStack() as stack:
        sites: list[Measured] = []
        for side in compared:
            if side.peer:
                if peer_keys is None:
                    raise SystemExit("--peer-keys is missing")
                sites.append(at_peer(side, peer_keys[0], key_type, peer_keys[1]))
            else:
                running_side = serving(side, folder / f"{side.name}-{key_type}", key_type, keys)
                sites.append(stack.enter_context(running_side))
        yield sites


def measured(
    compared: Iterable[Side],
    folder: Path,
    key_type: str,
    turns: int,
    seconds: float,
    program: Path | None = None,
    peer_keys: tuple[Path, int] | None = None,
) -> list[Measured]:
    """Measure all sides with keys of one type; `program` asks, if it is given."""
    with every_side(compared, folder, key_type, KEYS, peer_keys) as sites:
        if min(len(site.clients) for site in sites) < max(CLIENTS):
            raise SystemExit(f"the peer needs {max(CLIENTS)} {key_type} keys, one for each client")
        asked = [MeasuredByClient(program, site) if program else site for site in sites]
        in_turn(asked, turns, lambda one: one.measure(seconds))
    return asked


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what runs over HTTP: all that a side may be."""
    add_side_options(parser, peer="a program that answers as we do over HTTP, to compare with")
    parser.add_argument("--peer-keys", type=Path, metavar="FILE", help="the hashes of its keys, a line each")
    parser.add_argument(
        "--peer-level", type=int, default=0, metavar="LEVEL", help="it has signed none above (default: 0)"
    )


def peer_keys(options: argparse.Namespace) -> tuple[Path, int] | None:
    """Return what the options say of a peer's keys."""
    return (options.peer_keys, options.peer_level) if options.peer_keys else None


def print_configurations(folder: Path, compared: Iterable[Side], key_type: str) -> None:
    """Print that there were no errors, and how each side was configured."""
    print(ERRORS)
    for side in compared:
        print(side.text if side.peer else f"{side.text}\n{configuration_of(side, folder, key_type)}")


def configuration_of(side: Side, folder: Path, key_type: str) -> str:
    """Return what the configuration of a side says, that `every_side` has made."""
    return configuration_text(folder / f"{side.name}-{key_type}" / CONFIG_NAME)


def main() -> None:
    """Print one line per type of keys, number of clients and side, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure signatures over HTTP.")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=TYPES, help="of keys (default: all)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each number of clients (default: %(default)s)")
    add_folder_option(parser)
    add_peer_options(parser)
    client.add_option(parser)
    options = parser.parse_args()
    compared = sides(options)
    print(f"{machine_line(options.folder)}, {client.load_text(options.client)}")
    print(f"{'':<4} {HEAD}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for key_type in options.types:
            keys = peer_keys(options)
            each = measured(compared, Path(name), key_type, options.turns, options.seconds, options.client, keys)
            for count in CLIENTS:
                for one in each:
                    print(f"{key_type:<4} {one.line(count)}", flush=True)
                rates, busy = [one.rates[count] for one in each], [one.busy[count] for one in each]
                print_ratios([one.name for one in each], rate=rates, p50=[one.medians(count) for one in each], CPU=busy)
        print_configurations(Path(name), compared, options.types[0])


if __name__ == "__main__":
    main()
