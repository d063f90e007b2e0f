"""Bursts: all delegates of a host preattest at once, and when all have their signatures, all attest at once.

`python -m benchmarks.burst` starts both programs with as many keys, each asked on a connection of its own, and counts from
the first request of a burst to the last answer. Every preattestation and attestation moves a mark. What `benchmarks.turns`
names runs beside it, and is asked in turn; a peer has keys already, and as many as ours. `--client` names a compiled client
that asks instead: `benchmarks.client` says how it is asked.
"""

import argparse
import selectors
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import client
from benchmarks.host import Client, Measured, add_peer_options, every_side, peer_keys, print_configurations
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import LATENCY_HEAD, Side, in_turn, latency_columns, print_ratios, sides
from tests.doubles.known_keys import attestation, preattestation

DELEGATES = 100
#: Bursts of a turn: 1 000 signatures of 100 delegates.
BURSTS = 5


class Bursts:
    """The delegates of one side, with seconds of each turn's bursts together, and of each request."""

    def __init__(self, site: Measured) -> None:
        self.name = site.name
        self.pkhs = [pkh for each in site.clients for pkh in each.pkhs]
        self.host, self.port = site.clients[0].address
        self.clients = [Client(self.port, pkh, host=self.host) for pkh in self.pkhs]
        self.level = site.clients[0].level
        self.turns: list[float] = []
        self.took: list[float] = []

    def measure(self) -> None:
        """Take one turn."""
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            for each in self.clients:
                selector.register(stack.enter_context(each.connect()), selectors.EVENT_READ, each)
            begun = time.perf_counter()
            for _ in range(BURSTS):
                self.level += 1
                for message in (preattestation, attestation):
                    self._all_sign(selector, message)
            self.turns.append(time.perf_counter() - begun)

    def _all_sign(self, selector: selectors.BaseSelector, message: Callable[[int], bytes]) -> None:
        for each in self.clients:
            each.send(each.heads[0], message(self.level))
        missing = len(self.clients)
        while missing:
            for key, _ in selector.select():
                answered = key.data.take()
                if answered is not None:
                    self.took.append(answered)
                    missing -= 1

    def latencies(self) -> str:
        """Return the columns of latencies."""
        return latency_columns(self.took)

    def line(self) -> str:
        """Return a line of the table."""
        seconds = median(self.turns)
        rate = 2 * BURSTS * len(self.clients) / seconds
        return f"{self.name:<5} {seconds:>8.3f} {rate:>8.0f} {self.latencies()}"


class BurstsByClient(Bursts):
    """The same, where a client of one's own asks."""

    def __init__(self, program: Path, site: Measured) -> None:
        super().__init__(site)
        self._program = program
        self._reports: list[client.Report] = []

    def measure(self) -> None:
        """Take one turn."""
        asked = ("burst", "--rounds", BURSTS, "--base", self.level + 1)
        report = client.over_http(self._program, (self.host, self.port), self.pkhs, *asked)
        self.level += client.LEVELS
        self.turns.append(report.seconds)
        self._reports.append(report)

    def latencies(self) -> str:
        """Return the columns of latencies."""
        return client.columns(self._reports)


def measured(
    compared: Iterable[Side],
    folder: Path,
    key_type: str,
    turns: int,
    number: int = DELEGATES,
    program: Path | None = None,
    keys: tuple[Path, int] | None = None,
) -> list[Bursts]:
    """Measure all sides with as many keys of one type; `program` asks, if it is given; `keys` are those of a peer."""
    with every_side(compared, folder, key_type, number, keys) as sites:
        each = [BurstsByClient(program, site) if program else Bursts(site) for site in sites]
        if len({len(one.pkhs) for one in each}) > 1:
            raise SystemExit(f"the peer has {len(each[-1].pkhs)} keys, ours {number}: see --delegates")
        in_turn(each, turns, lambda one: one.measure())
    return each


def main() -> None:
    """Print one line per type of keys and side, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure bursts of signatures.")
    parser.add_argument("--types", nargs="+", default=["tz1", "tz4"], help="of keys (default: %(default)s)")
    parser.add_argument("--delegates", type=int, default=DELEGATES, help="how many (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    add_folder_option(parser)
    add_peer_options(parser)
    client.add_option(parser)
    options = parser.parse_args()
    compared = sides(options)
    print(f"{machine_line(options.folder)}, {client.load_text(options.client)}")
    print(f"seconds of {BURSTS} bursts: {2 * BURSTS * options.delegates} signatures")
    print(f"{'':<4} {'':<5} {'seconds':>8} {'rate/s':>8} {LATENCY_HEAD}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for key_type in options.types:
            asked = (options.delegates, options.client, peer_keys(options))
            each = measured(compared, Path(name), key_type, options.turns, *asked)
            for one in each:
                print(f"{key_type:<4} {one.line()}", flush=True)
            print_ratios([one.name for one in each], seconds=[one.turns for one in each])
        print_configurations(Path(name), compared, options.types[0])


if __name__ == "__main__":
    main()
