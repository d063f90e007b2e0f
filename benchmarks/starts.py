"""Starts: how long each program takes until it listens, and the memory that it has then.

`python -m benchmarks.starts [--old CHECKOUT]` starts `enclave-signer` with the local sealer, and `enclave-host serve` with
keys and marks in files, again and again. With another checkout of this repository, those of both are started in turn.
At the end it says which libraries of Google's are in the processes: none are, as none is configured.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.host import configuration_text, serving
from benchmarks.machine import machine_line
from benchmarks.turns import ROOT, environment_of, in_turn, ratio_text
from tests.doubles.host_process import CONFIG_NAME
from tests.doubles.processes import running

_MIB = 1 << 20
#: How a file of Google's is named in what a process has mapped.
_OF_GOOGLE = ("grpc", "google")


class Program:
    """One program of one checkout: seconds and MiB of each start, and the files of Google's that it had mapped."""

    def __init__(self, name: str, checkout: Path, command: list[str], listening: str) -> None:
        self.name = name
        self._environment = environment_of(checkout)
        self._command = [sys.executable, "-m", *command]
        self._listening = listening
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self.of_google: set[str] = set()

    def measure(self) -> None:
        """Take one turn."""
        begun = time.perf_counter()
        with running(self._command, self._environment) as program:
            program.wait_for(self._listening)
            self.seconds.append(time.perf_counter() - begun)
            self.memory.append(program.resident_bytes() / _MIB)
            mapped = {line.split()[-1] for line in Path(f"/proc/{program.pid}/maps").read_text().splitlines()}
            self.of_google |= {path for path in mapped if any(f"/{name}/" in path for name in _OF_GOOGLE)}
            program.stop()

    def line(self, program: str) -> str:
        """Return a line of the table."""
        times = f"{median(self.seconds) * 1e3:>8.0f} {max(self.seconds) * 1e3:>8.0f}"
        return f"{program:<15} {self.name:<5} {times} {median(self.memory):>8.1f}"


def main() -> None:
    """Print one line per program and checkout, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure starts, and the memory after them.")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    parser.add_argument("--turns", type=int, default=10, help="how often each is started (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line())
    checkouts = {"this": ROOT, **({"other": options.old.resolve()} if options.old else {})}
    programs: dict[str, list[Program]] = {"enclave-signer": [], "enclave-host": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ExitStack() as stack:
        for name, checkout in checkouts.items():
            place = Path(folder) / name
            # An enclave and keys for the host; its own host ends, as there is one at a time in a folder.
            stack.enter_context(serving(name, checkout, place)).host.stop()
            enclave = ["enclave_signer", "--listen", "127.0.0.1:0", "--sealing-key", f"{place}/sealing.key"]
            programs["enclave-signer"].append(Program(name, checkout, enclave, "listening on 127"))
            host = ["host_backend", "serve", "-c", str(place / CONFIG_NAME)]
            programs["enclave-host"].append(Program(name, checkout, host, "HTTP server is listening for connections"))
        for each in programs.values():
            in_turn(each, options.turns, Program.measure)
        print(configuration_text(place / CONFIG_NAME))
    print(f"{'':<15} {'':<5} {'start ms':>8} {'most ms':>8} {'MiB':>8}")
    for program, each in programs.items():
        for one in each:
            print(one.line(program))
        if options.old:
            this, other = each
            start, memory = ratio_text(this.seconds, other.seconds), ratio_text(this.memory, other.memory)
            print(f"{'':<15} this : other, start {start}, memory {memory}")
    loaded = sorted({path for each in programs.values() for one in each for path in one.of_google})
    print(f"libraries of Google's in these processes: {', '.join(loaded) or 'none'}")
    sys.exit(bool(loaded))


if __name__ == "__main__":
    main()
