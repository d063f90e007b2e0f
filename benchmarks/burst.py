"""Bursts: all delegates of a host preattest at once, and when all have their signatures, all attest at once.

`python -m benchmarks.burst [--old CHECKOUT]` starts both programs with as many keys, each asked on a connection of its own,
and counts from the first request of a burst to the last answer. Every preattestation and attestation moves a mark. With
another checkout of this repository, the programs of both run side by side, and are asked in turn. `--client` names a
compiled client that asks instead: `benchmarks.client` says how it is asked.
"""

import argparse
import selectors
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks import client
from benchmarks.host import Client, configuration_text, serving
from benchmarks.machine import machine_line
from benchmarks.turns import ERRORS, LATENCY_HEAD, ROOT, in_turn, latency_columns, ratio_text
from tests.doubles.host_process import CONFIG_NAME, stored_hashes
from tests.doubles.known_keys import attestation, preattestation

DELEGATES = 100
#: Bursts of a turn: 1 000 signatures of 100 delegates.
BURSTS = 5


class Bursts:
    """The delegates of one checkout's host, with seconds of each turn's bursts together, and of each request."""

    def __init__(self, name: str, clients: Sequence[Client]) -> None:
        self.name = name
        self.clients = clients
        self.level = 0
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

    def __init__(self, program: Path, site: Bursts) -> None:
        super().__init__(site.name, site.clients)
        self._program = program
        self._pkhs = [pkh for each in site.clients for pkh in each.pkhs]
        self._reports: list[client.Report] = []

    def measure(self) -> None:
        """Take one turn."""
        asked = ("burst", "--rounds", BURSTS, "--base", self.level + 1)
        report = client.over_http(self._program, self.clients[0].port, self._pkhs, *asked)
        self.level += client.LEVELS
        self.turns.append(report.seconds)
        self._reports.append(report)

    def latencies(self) -> str:
        """Return the columns of latencies."""
        return client.columns(self._reports)


@contextmanager
def delegates(name: str, checkout: Path, folder: Path, key_type: str, number: int = DELEGATES) -> Iterator[Bursts]:
    """Run both programs of a checkout for as many delegates."""
    with serving(name, checkout, folder, key_type, number) as site:
        port = site.clients[0].port
        yield Bursts(name, [Client(port, pkh) for pkh in stored_hashes(folder / CONFIG_NAME)])


def measured(
    folder: Path,
    key_type: str,
    turns: int,
    number: int = DELEGATES,
    old: Path | None = None,
    program: Path | None = None,
) -> list[Bursts]:
    """Measure keys of one type: this checkout, and another one if there is one; `program` asks, if it is given."""
    checkouts = {"this": ROOT, **({"other": old.resolve()} if old else {})}
    with ExitStack() as stack:
        sites = [
            stack.enter_context(delegates(name, checkout, folder / f"{name}-{key_type}", key_type, number))
            for name, checkout in checkouts.items()
        ]
        if program:
            sites = [BurstsByClient(program, site) for site in sites]
        in_turn(sites, turns, lambda one: one.measure())
    return sites


def main() -> None:
    """Print one line per type of keys and checkout, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure bursts of signatures.")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--types", nargs="+", default=["tz1", "tz4"], help="of keys (default: %(default)s)")
    parser.add_argument("--delegates", type=int, default=DELEGATES, help="how many (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    client.add_option(parser)
    options = parser.parse_args()
    print(machine_line(options.folder))
    print(f"seconds of {BURSTS} bursts: {2 * BURSTS * options.delegates} signatures")
    print(f"{'':<4} {'':<5} {'seconds':>8} {'rate/s':>8} {LATENCY_HEAD}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for key_type in options.types:
            each = measured(Path(name), key_type, options.turns, options.delegates, options.old, options.client)
            for one in each:
                print(f"{key_type:<4} {one.line()}", flush=True)
            if options.old:
                print(f"{'':<4} this : other, seconds {ratio_text(*(one.turns for one in each))}")
        print(ERRORS, configuration_text(Path(name) / f"this-{options.types[0]}" / CONFIG_NAME), sep="\n")


if __name__ == "__main__":
    main()
