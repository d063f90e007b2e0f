"""Instructions: how many each program takes for a signature, beside the processor's time.

`python -m benchmarks.instructions [--old CHECKOUT]` counts those in user space, which hardly depend on what else the
machine does. `perf stat` counts them where the kernel and the machine allow it. Otherwise callgrind does, under which
programs run some fifty times slower, so that times are left out. Where neither works, this says so and prints times alone.
"""

import argparse
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.host import KEYS, TYPES, Measured, configuration_text, serving
from benchmarks.machine import machine_line
from benchmarks.turns import ERRORS, ROOT, in_turn, processor_seconds, ratio_text
from tests.doubles import processes
from tests.doubles.host_process import CONFIG_NAME
from tests.doubles.processes import Program

EVENT = "instructions:u"
#: Clients that ask at once.
CLIENTS = 16
#: Seconds that a program may take to start under callgrind: some ten on a quiet machine.
_PATIENCE_S = 600.0


class Perf:
    """Counts by `perf stat`, which the machine does at no cost."""

    name = "perf stat"
    prefix: Sequence[str] = ()

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
    subprocess.run(["callgrind_control", order, str(program.pid)], stdout=subprocess.DEVNULL, check=True)


def counter(folder: Path) -> Counter | None:
    """Return what counts instructions here; None where nothing does."""
    perf = Perf()
    if perf.works():
        return perf
    return Callgrind(folder) if Callgrind.works() else None


class Counted:
    """The programs of one checkout, with what each took for a signature in each turn: instructions, and seconds."""

    def __init__(self, site: Measured, counts: Counter | None) -> None:
        self.name = site.name
        self._site = Measured(site.name, site.host, site.clients, [CLIENTS])
        self.programs = {"host": site.host, **({"enclave": site.daemon} if site.daemon else {})}
        self._counter = counts
        self.instructions: dict[str, list[float]] = {name: [] for name in self.programs}
        self.seconds: dict[str, list[float]] = {name: [] for name in self.programs}

    def measure(self, seconds: float) -> None:
        """Take one turn."""
        before = {name: processor_seconds(program) for name, program in self.programs.items()}
        counted: dict[str, list[float]] = {name: [] for name in self.programs}
        with ExitStack() as stack:
            for name, program in self.programs.items():
                if self._counter is not None:
                    stack.enter_context(self._counter.counting(program, counted[name]))
            self._site.measure(seconds)
        signatures = len(self._site.turns[CLIENTS][-1])
        for name, program in self.programs.items():
            self.instructions[name] += [number / signatures for number in counted[name]]
            self.seconds[name].append((processor_seconds(program) - before[name]) / signatures)

    def line(self, program: str) -> str:
        """Return a line of the table."""
        numbers = self.instructions[program]
        thousands = f"{median(numbers) / 1e3:>12.1f}" if numbers else f"{'not counted':>12}"
        slowed = self._counter is not None and self._counter.prefix
        microseconds = f"{'-':>8}" if slowed else f"{median(self.seconds[program]) * 1e6:>8.1f}"
        return f"{program:<8} {self.name:<5} {thousands} {microseconds}"


def main() -> None:
    """Print one line per type of keys, program and checkout, and their ratios."""
    parser = argparse.ArgumentParser(description="Count the instructions of a signature over HTTP.")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--types", nargs="+", choices=TYPES, default=["tz1", "tz4"], help="(default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is counted (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line(options.folder))
    checkouts = {"this": ROOT, **({"other": options.old.resolve()} if options.old else {})}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        counts = Path(name) / "counts"
        counts.mkdir()
        counts_by = counter(counts)
        print(f"counted by {counts_by.name}" if counts_by else "neither perf nor callgrind counts instructions here")
        print(f"{CLIENTS} clients; for one signature\n{'':<4} {'':<14} {'thousands':>12} {'CPU µs':>8}")
        for key_type in options.types:
            with ExitStack() as stack:
                each = [
                    Counted(stack.enter_context(_served(label, checkout, Path(name), key_type, counts_by)), counts_by)
                    for label, checkout in checkouts.items()
                ]
                in_turn(each, options.turns, lambda one: one.measure(options.seconds))
            for program in each[0].programs:
                for one in each:
                    print(f"{key_type:<4} {one.line(program)}", flush=True)
                if options.old and counts_by:
                    print(f"{'':>10} this : other {ratio_text(*(one.instructions[program] for one in each))}")
        print(ERRORS, configuration_text(Path(name) / f"this-{options.types[0]}" / CONFIG_NAME), sep="\n")


@contextmanager
def _served(label: str, checkout: Path, folder: Path, key_type: str, counts_by: Counter | None) -> Iterator[Measured]:
    prefix = counts_by.prefix if counts_by else ()
    with serving(label, checkout, folder / f"{label}-{key_type}", key_type, KEYS, prefix=prefix) as site:
        # The first requests do more than later ones, and do not count.
        Measured(label, site.host, site.clients, [CLIENTS]).measure(1)
        yield site


if __name__ == "__main__":
    main()
