"""Commits of the watermark store on a real disk: how many a second, and how long one takes.

`python -m benchmarks.marks [--old CHECKOUT]` moves all rights by one level, asked together, again as soon as all are
answered. With another checkout of this repository, the stores of both are measured in turn, each time in a process of
its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks import moves
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.moves import RIGHTS
from benchmarks.turns import ROOT, environment_of, in_turn, quantile, ratio_text

#: Levels of one process: more than it comes to.
_LEVELS = 1_000_000


class Measured:
    """What was measured of one checkout, by the number of rights: a list of seconds for each turn."""

    def __init__(self, name: str, checkout: Path, folder: Path) -> None:
        self.name = name
        self.environment = {**os.environ, **environment_of(checkout)}
        self.base_dir = folder / name
        self.base_dir.mkdir()
        self.commits = dict.fromkeys(RIGHTS, 0)
        self.turns: dict[int, list[list[float]]] = {rights: [] for rights in RIGHTS}
        #: The processor's time for a move, in each turn.
        self.busy: dict[int, list[float]] = {rights: [] for rights in RIGHTS}

    def measure(self, seconds: float) -> None:
        """Take one turn."""
        level = len(self.turns[RIGHTS[0]]) * _LEVELS
        command = [sys.executable, moves.__file__, str(self.base_dir), str(level), str(seconds)]
        output = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, check=True).stdout
        for rights, (commits, busy, took) in zip(RIGHTS, json.loads(output), strict=True):
            self.commits[rights] += commits
            self.busy[rights].append(busy / len(took))
            self.turns[rights].append(took)

    def rates(self, rights: int) -> list[float]:
        """Return the moves per second of each turn."""
        return [len(took) / sum(took) for took in self.turns[rights]]

    def medians(self, rights: int) -> list[float]:
        """Return the median of each turn, in seconds."""
        return [median(took) for took in self.turns[rights]]

    def line(self, rights: int) -> str:
        """Return a line of the table."""
        took = [seconds for turn in self.turns[rights] for seconds in turn]
        p50, p99 = quantile(took, 0.5) * 1e3, quantile(took, 0.99) * 1e3
        commits, busy = self.commits[rights] / sum(took), median(self.busy[rights]) * 1e3
        return f"{rights:>6} {self.name:<5} {commits:>9.0f} {p50:>8.3f} {p99:>8.3f} {busy:>8.3f}"


def main() -> None:
    """Print one line per number of rights and checkout, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure the watermark store on a real disk.")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--turns", type=int, default=20, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each number of rights (default: %(default)s)")
    add_folder_option(parser)
    options = parser.parse_args()
    print(machine_line(options.folder))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measured = [Measured("this", ROOT, Path(folder))]
        if options.old:
            measured.append(Measured("other", options.old.resolve(), Path(folder)))
        in_turn(measured, options.turns, lambda one: one.measure(options.seconds))
    print(f"{'rights':>6} {'':<5} {'commits/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>8}")
    for rights in RIGHTS:
        for one in measured:
            print(one.line(rights))
        if options.old:
            this, other = measured
            rate = ratio_text(this.rates(rights), other.rates(rights))
            p50 = ratio_text(this.medians(rights), other.medians(rights))
            busy = ratio_text(this.busy[rights], other.busy[rights])
            print(f"{'':>6} this : other, rate {rate}, p50 {p50}, CPU {busy}")


if __name__ == "__main__":
    main()
