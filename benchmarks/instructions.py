"""Instructions: how many each program takes for a signature, beside the processor's time.

`python -m benchmarks.instructions` counts those in user space, which hardly depend on what else the machine does. What
`benchmarks.turns` names runs beside it. `perf stat` counts them where the kernel and the machine allow it. Otherwise
callgrind does, under which programs run some fifty times slower, so that times are left out, and the host waits longer for
its enclave. Where neither works, this says so and prints times alone.

What the programs do each second, asked or not, weighs more in a program that runs slower. It is counted while they are idle,
and the second column is without it. What a signature takes lies between the two, as busy programs do not all of it.
"""

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import nan
from pathlib import Path
from statistics import median

from benchmarks.host import KEYS, TYPES, Measured, Served, print_configurations, serving
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import Side, add_side_options, column, in_turn, print_ratios, processor_seconds, sides
from tests.doubles import processes
from tests.doubles.processes import Program

EVENT = "instructions:u"
#: Clients that ask at once.
CLIENTS = 16
#: Seconds that a program may take to start under callgrind: some ten on a quiet machine.
_PATIENCE_S = 600.0
#: Seconds for a turn, at most, and those in which programs are idle.
_TURN_S, _IDLE_S = 600.0, 5.0
#: Requests that come first and do not count: some do more than later ones, as each key's first.
_FIRST = 300


class Perf:
    """Counts by `perf stat`, which the machine does at no cost."""

    name = "perf stat"
    prefix: Sequence[str] = ()
    host = "host_backend"

    def __init__(self, event: str = EVENT) -> None:
        self._event = event

    def works(self) -> bool:
        """Whether the kernel and the machine allow it."""
        if shutil.which("perf") is None:
            return False
        tried = subprocess.run(
            ["perf", "stat", "-x,", "-e", self._event, "true"], check=False, capture_output=True, text=True
        )
        return tried.returncode == 0 and tried.stderr.partition(",")[0].replace(".", "").isdigit()

    @contextmanager
    def counting(self, program: Program, found: list[float]) -> Iterator[None]:
        """Count within the block, and add the number to a list."""
        orders, order = os.pipe()
        answer, answers = os.pipe()
        control = ["--delay", "-1", "--control", f"fd:{orders},{answers}"]
        command = ["perf", "stat", "-x,", "-e", self._event, *control, "-p", str(program.pid)]
        process = subprocess.Popen(command, pass_fds=(orders, answers), stderr=subprocess.PIPE, text=True)
        try:
            for word in (b"enable\n", b"disable\n"):
                os.write(order, word)
                os.read(answer, 16)
                if word == b"enable\n":
                    yield
        finally:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate()
            for descriptor in (orders, order, answer, answers):
                os.close(descriptor)
        counted = next(line for line in said.splitlines() if self._event in line)
        found.append(float(counted.partition(",")[0]))


class Callgrind:
    """Counts by valgrind's callgrind, in which the programs run."""

    name = "callgrind"
    host = "benchmarks.patient_host"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # So slow are starts here.
        processes.PATIENCE_S = _PATIENCE_S
        self.prefix: Sequence[str] = ("valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={folder}/%p")

    @staticmethod
    def works() -> bool:
        """Whether it is installed, and runs."""
        if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
            return False
        return (
            subprocess.run(["valgrind", "-q", "--tool=none", "true"], check=False, capture_output=True).returncode == 0
        )

    @contextmanager
    def counting(self, program: Program, found: list[float]) -> Iterator[None]:
        """Count within the block, and add the number to a list."""
        _control("--zero", program)
        yield
        before = {*self._folder.iterdir()}
        _control("--dump", program)
        (written,) = {*self._folder.iterdir()} - before
        counted = next(line for line in written.read_text().splitlines() if line.startswith("totals:"))
        found.append(float(counted.partition(":")[2]))


Counter = Perf | Callgrind


def _control(order: str, program: Program) -> None:
    subprocess.run(["callgrind_control", order, str(program.pid)], capture_output=True, check=True)


def counter(folder: Path) -> Counter | None:
    """Return what counts instructions here; None where nothing does."""
    perf = Perf()
    if perf.works():
        return perf
    return Callgrind(folder) if Callgrind.works() else None


class Counted:
    """The programs of one side, with what each took for a signature in each turn: instructions, and seconds."""

    def __init__(self, site: Served, counts: Counter | None) -> None:
        self.name = site.name
        self._site = Measured(site.name, site.host, site.clients, [CLIENTS])
        self.programs = {"host": site.host, "enclave": site.daemon}
        self._counter = counts
        self.instructions: dict[str, list[float]] = {name: [] for name in self.programs}
        self.without_idle: dict[str, list[float]] = {name: [] for name in self.programs}
        self.seconds: dict[str, list[float]] = {name: [] for name in self.programs}
        #: Instructions a second while nothing is asked.
        self.idle = dict.fromkeys(self.programs, 0.0)

    def _count(self, work: Callable[[], object]) -> tuple[dict[str, float], float]:
        """Return the instructions that each program takes while some work is done, and the seconds."""
        counted: dict[str, list[float]] = {name: [] for name in self.programs}
        with ExitStack() as stack:
            for name, program in self.programs.items():
                if self._counter is not None:
                    stack.enter_context(self._counter.counting(program, counted[name]))
            begun = time.perf_counter()
            work()
            took = time.perf_counter() - begun
        return {name: number for name, numbers in counted.items() for number in numbers}, took

    def prepare(self) -> None:
        """Let every key sign, and count what the programs do when they are idle."""
        self._site.measure(_TURN_S, _FIRST)
        counted, took = self._count(partial(time.sleep, _IDLE_S))
        self.idle = {name: number / took for name, number in counted.items()}

    def measure(self, signatures: int) -> None:
        """Take one turn."""
        before = {name: processor_seconds(program) for name, program in self.programs.items()}
        counted, took = self._count(partial(self._site.measure, _TURN_S, signatures))
        answered = len(self._site.turns[CLIENTS][-1])
        for name, program in self.programs.items():
            if name in counted:
                self.instructions[name].append(counted[name] / answered)
                self.without_idle[name].append((counted[name] - self.idle[name] * took) / answered)
            self.seconds[name].append((processor_seconds(program) - before[name]) / answered)

    def line(self, program: str) -> str:
        """Return a line of the table."""
        numbers = self.instructions[program]
        without_idle = median(self.without_idle[program] or [nan]) / 1e3
        thousands = f"{median(numbers) / 1e3:>12.1f}" if numbers else f"{'not counted':>12}"
        slowed = self._counter is not None and self._counter.prefix
        microseconds = f"{'-':>8}" if slowed else f"{median(self.seconds[program]) * 1e6:>8.1f}"
        return f"{program:<8} {self.name:<5} {thousands} {column(without_idle, 12, 1)} {microseconds}"


def main() -> None:
    """Print one line per type of keys, program and side, and their ratios."""
    parser = argparse.ArgumentParser(description="Count the instructions of a signature over HTTP.")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["tz1", "tz4"], help="(default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is counted (default: %(default)s)")
    parser.add_argument("--signatures", type=int, default=1000, help="of a turn (default: %(default)s)")
    add_folder_option(parser)
    add_side_options(parser)
    options = parser.parse_args()
    compared = sides(options)
    print(machine_line(options.folder))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        counts = Path(name) / "counts"
        counts.mkdir()
        counts_by = counter(counts)
        print(f"counted by {counts_by.name}" if counts_by else "neither perf nor callgrind counts instructions here")
        print(f"{CLIENTS} clients, {options.signatures} signatures a turn; for one signature")
        print(f"{'':<4} {'':<14} {'thousands':>12} {'without idle':>12} {'CPU µs':>8}", flush=True)
        for key_type in options.types:
            each = counted_sides(compared, Path(name), key_type, counts_by, options.turns, options.signatures)
            for program in each[0].programs:
                for one in each:
                    print(f"{key_type:<4} {one.line(program)}", flush=True)
                if counts_by:
                    print_ratios([one.name for one in each], instructions=[one.instructions[program] for one in each])
        print_configurations(Path(name), compared, options.types[0])


def counted_sides(
    compared: Iterable[Side], folder: Path, key_type: str, counts_by: Counter | None, turns: int, signatures: int
) -> list[Counted]:
    """Count all sides with keys of one type."""
    prefix, module = (counts_by.prefix, counts_by.host) if counts_by else ((), "host_backend")
    with ExitStack() as stack:
        each = []
        for side in compared:
            place = folder / f"{side.name}-{key_type}"
            site = stack.enter_context(serving(side, place, key_type, KEYS, module, prefix))
            each.append(Counted(site, counts_by))
            each[-1].prepare()
        in_turn(each, turns, lambda one: one.measure(signatures))
    return each


if __name__ == "__main__":
    main()
