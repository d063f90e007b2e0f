"""Starts: how long each program takes until it listens, and the memory that it has then.

`python -m benchmarks.starts` starts `enclave-signer` with the local sealer, and `enclave-host serve` with keys and marks in
files, again and again, in turn with what `benchmarks.turns` names. A peer is started by `--peer-command`, with whatever it
has, and takes its turns beside both; it listens when it takes a connection. At the end this says which libraries of Google's
are in our processes: none are, as none is configured.
"""

import argparse
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

from benchmarks.host import configuration_text, serving
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import ERRORS, Side, add_side_options, environment_of, in_turn, print_ratios, sides
from tests.doubles.host_process import CONFIG_NAME
from tests.doubles.processes import PATIENCE_S, running
from tests.doubles.processes import Program as Process

_MIB = 1 << 20
#: Seconds between two looks at whether a peer listens.
_LOOK_S = 0.002
#: How a file of Google's is named in what a process has mapped.
_OF_GOOGLE = ("grpc", "google")


class Program:
    """One program of one side: seconds and MiB of each start, and the files of Google's that it had mapped."""

    def __init__(self, side: Side, command: Sequence[str], listening: str) -> None:
        self.name = side.name
        self._side = side
        self._environment = {} if side.peer else environment_of(side.checkout)
        self._command = command
        self._listening = listening
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self.of_google: set[str] = set()

    def measure(self) -> None:
        """Take one turn."""
        begun = time.perf_counter()
        with running(self._command, self._environment) as program:
            self._wait(program)
            self.seconds.append(time.perf_counter() - begun)
            self.memory.append(program.resident_bytes() / _MIB)
            mapped = {line.split()[-1] for line in Path(f"/proc/{program.pid}/maps").read_text().splitlines()}
            if not self._side.peer:
                self.of_google |= {path for path in mapped if any(f"/{name}/" in path for name in _OF_GOOGLE)}
            program.stop()

    def _wait(self, program: Process) -> None:
        """Wait until it listens."""
        if not self._side.peer:
            program.wait_for(self._listening)
            return
        end = time.perf_counter() + PATIENCE_S
        while program.process.poll() is None and time.perf_counter() < end:
            with suppress(ConnectionRefusedError), socket.create_connection(self._side.peer_address):
                return
            time.sleep(_LOOK_S)
        raise SystemExit(f"the peer does not listen on {self._side.peer}:\n{program.log}")

    def line(self, program: str) -> str:
        """Return a line of the table."""
        times = f"{median(self.seconds) * 1e3:>8.0f} {max(self.seconds) * 1e3:>8.0f}"
        return f"{program:<15} {self.name:<5} {times} {median(self.memory):>8.1f}"


def main() -> None:
    """Print one line per program and side, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure starts, and the memory after them.")
    parser.add_argument("--turns", type=int, default=10, help="how often each is started (default: %(default)s)")
    add_folder_option(parser)
    add_side_options(parser, peer="where a program listens that is started beside ours, to compare with")
    parser.add_argument("--peer-command", metavar="COMMAND", help="what starts it")
    options = parser.parse_args()
    compared = sides(options)
    print(machine_line(options.folder))
    programs: dict[str, list[Program]] = {"enclave-signer": [], "enclave-host": []}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, ExitStack() as stack:
        for side in compared:
            place = Path(folder) / side.name
            print(side.text)
            if side.peer:
                if not options.peer_command:
                    parser.error("--peer-command is missing")
                for each in programs.values():
                    each.append(Program(side, shlex.split(options.peer_command), ""))
                continue
            # An enclave and keys for the host; its own host ends, as there is one at a time in a folder.
            stack.enter_context(serving(side, place)).host.stop()
            listen = ("--listen", "127.0.0.1:0", "--sealing-key", f"{place}/sealing.key", *side.enclave_arguments)
            enclave = [sys.executable, "-m", "enclave_signer", *listen]
            programs["enclave-signer"].append(Program(side, enclave, "listening on 127"))
            host = [sys.executable, "-m", "host_backend", "serve", "-c", str(place / CONFIG_NAME)]
            programs["enclave-host"].append(Program(side, host, "HTTP server is listening for connections"))
            print(configuration_text(place / CONFIG_NAME))
        for each in programs.values():
            in_turn(each, options.turns, Program.measure)
    print(f"{'':<15} {'':<5} {'start ms':>8} {'most ms':>8} {'MiB':>8}")
    for program, each in programs.items():
        for one in each:
            print(one.line(program))
        seconds, memory = [one.seconds for one in each], [one.memory for one in each]
        print_ratios([one.name for one in each], start=seconds, memory=memory)
    print(ERRORS)
    loaded = sorted({path for each in programs.values() for one in each for path in one.of_google})
    print(f"libraries of Google's in these processes: {', '.join(loaded) or 'none'}")
    sys.exit(bool(loaded))


if __name__ == "__main__":
    main()
