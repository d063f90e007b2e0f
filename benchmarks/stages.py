"""Stages: where the time of a request goes.

`python -m benchmarks.stages` loads a host with one client, then with sixteen. For each it prints how long a request was in
each stage, as the host's own metrics count it, and the rest, of HTTP, the kernel and the client; and the processor's
time by module of ours, from samples. What `benchmarks.turns` names runs beside it, and is asked in turn; a peer does not
say where its time goes. Sampling slows the host: compare parts of one run, not rates with other benchmarks.
"""

import argparse
import http.client
import json
import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import get_args

from benchmarks import client
from benchmarks.host import (
    CLIENTS,
    HEAD,
    KEYS,
    TYPES,
    Measured,
    MeasuredByClient,
    Served,
    port_of,
    print_configurations,
    serving,
)
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.sampled_host import SAMPLES
from benchmarks.turns import Side, add_side_options, in_turn, print_ratios, sides
from host_backend.record import Stage

#: Modules that are shown.
SHOWN = 14
_STAGE = re.compile(r'^signing_stage_duration_seconds_sum\{stage="(\w+)"\} (\S+)$', re.MULTILINE)
_PAUSE_S = 0.02


def stage_seconds(port: int) -> dict[str, float]:
    """Return the seconds that all requests so far were in each stage, by the host's metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request("GET", "/metrics")
        found = dict(_STAGE.findall(connection.getresponse().read().decode()))
    finally:
        connection.close()
    return {stage: float(found.get(stage, 0)) for stage in get_args(Stage)}


def samples(site: Served, path: Path) -> Counter[str]:
    """Return the samples since this was last asked, by module."""
    path.unlink(missing_ok=True)
    site.host.process.send_signal(signal.SIGUSR2)
    while not path.exists():
        if site.host.process.poll() is not None:
            raise SystemExit(site.host.log)
        time.sleep(_PAUSE_S)
    return Counter(json.loads(path.read_text()))


class Stages:
    """One side with a number of clients; of each turn, where a request's time went, and where the processor's did: in µs."""

    def __init__(self, site: Served, path: Path, count: int, program: Path | None) -> None:
        self.name = site.name
        one = Measured(site.name, site.host, site.clients, [count])
        self.measured = MeasuredByClient(program, one) if program else one
        self.stages: list[dict[str, float]] = []
        self.modules: list[dict[str, float]] = []
        self._site = site
        self._path = path
        self._count = count

    def measure(self, seconds: float) -> None:
        """Take one turn."""
        utility = port_of(self._site.host, '"Utility HTTP server is listening for connections')
        # Metrics are rendered once a second.
        time.sleep(1.1)
        before = stage_seconds(utility)
        samples(self._site, self._path)
        self.measured.measure(seconds)
        modules = samples(self._site, self._path)
        time.sleep(1.1)
        after = stage_seconds(utility)
        answered, busy = self.measured.answered[self._count][-1], self.measured.busy[self._count][-1]
        mean = {stage: (after[stage] - before[stage]) / answered * 1e6 for stage in after}
        # Every client has one request on its way, and asks again at once.
        mean["HTTP, kernel, client"] = self._count / self.measured.rates[self._count][-1] * 1e6 - sum(mean.values())
        self.stages.append(mean)
        self.modules.append({name: number / modules.total() * busy * 1e6 for name, number in modules.items()})


def print_table(head: str, columns: Mapping[str, Sequence[dict[str, float]]], shown: Sequence[str]) -> None:
    """Print the medians of turns, a column for each side."""
    print(f"{head:<44} {' '.join(f'{name:>8}' for name in columns)}")
    for name in shown:
        medians = (median(turn.get(name, 0.0) for turn in turns) for turns in columns.values())
        print(f"{name:<44} {' '.join(f'{value:>8.1f}' for value in medians)}")


def measure(
    compared: Iterable[Side], folder: Path, key_type: str, turns: int, seconds: float, program: Path | None
) -> None:
    """Print where the time goes with keys of one type."""
    with ExitStack() as stack:
        sites = []
        for side in compared:
            # Each host has a file for its samples.
            os.environ[SAMPLES] = str(folder / f"samples-{side.name}")
            place = folder / f"{side.name}-{key_type}"
            site = stack.enter_context(serving(side, place, key_type, KEYS, "benchmarks.sampled_host"))
            sites.append((site, Path(os.environ[SAMPLES])))
        for count in CLIENTS:
            each = [Stages(site, path, count, program) for site, path in sites]
            in_turn(each, turns, lambda one: one.measure(seconds))
            print(f"\n{key_type}, clients: {count}\n{HEAD}", *(one.measured.line(count) for one in each), sep="\n")
            measured, names = [one.measured for one in each], [one.name for one in each]
            rates, busy = [one.rates[count] for one in measured], [one.busy[count] for one in measured]
            print_ratios(names, rate=rates, p50=[one.medians(count) for one in measured], CPU=busy)
            print_table("stage, mean µs", {one.name: one.stages for one in each}, [*each[0].stages[0]])
            modules = each[0].modules[0]
            most = sorted(modules, key=modules.__getitem__, reverse=True)[:SHOWN]
            print_table("module, CPU µs", {one.name: one.modules for one in each}, most)


def main() -> None:
    """Print tables for each type of keys and number of clients."""
    parser = argparse.ArgumentParser(description="Measure where the time of a request goes.")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["tz1", "tz4"], help="(default: %(default)s)")
    parser.add_argument("--turns", type=int, default=1, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each number of clients (default: %(default)s)")
    add_folder_option(parser)
    add_side_options(parser)
    client.add_option(parser)
    options = parser.parse_args()
    compared = sides(options)
    print(f"{machine_line(options.folder)}, {client.load_text(options.client)}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        for key_type in options.types:
            measure(compared, Path(name), key_type, options.turns, options.seconds, options.client)
        print_configurations(Path(name), compared, options.types[0])


if __name__ == "__main__":
    main()
