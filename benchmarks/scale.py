"""Scale: what a signature costs with 10 to 10 000 keys in one host, and how long the host takes to open them all.

`python -m benchmarks.scale` starts `enclave-signer` with the local sealer, and `enclave-host serve` with keys
in a file. Ready is from the start of the host's process until every key can sign. Then every key signs once, and sixteen
clients ask for attestations by all keys in turn. The processor's time is that of both programs, for one signature. What
`benchmarks.turns` names runs beside it, and is asked in turn; a peer has as many keys as it has, so that it is left out.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks import client
from benchmarks.capacity import MEGABYTE, keys_in, running_enclave
from benchmarks.host import WATERMARK, Client, Measured, MeasuredByClient, print_configurations
from benchmarks.machine import add_folder_option, machine_line
from benchmarks.turns import (
    LATENCY_HEAD,
    ROOT,
    Side,
    add_side_options,
    environment_of,
    in_turn,
    print_ratios,
    processor_seconds,
    sides,
)
from enclave_signer.protocol.key_types import KeyType
from tests.doubles.host_process import BAKER, Host, write_config
from tests.doubles.processes import Enclave

CLIENTS = 16
KEYS = (10, 100, 1000, 10_000)
#: Seconds after which it is looked whether all keys have signed.
_LOOK_S = 0.5
#: First signatures of keys, fewer than there are in a second.
FIRST_PER_S = 1000


class Cost:
    """A side that has a number of keys, and what those cost.

    Attributes:
        measured: Its clients.
        ready_s: Seconds until all keys could sign.
        by_both: Seconds of the processor for a signature, by both programs, in each turn.
        memory: Bytes of the host and of the enclave in memory, after the last turn.
    """

    def __init__(self, measured: Measured, host: Host, enclave: Enclave, ready_s: float) -> None:
        self.name = measured.name
        self.measured = measured
        self.ready_s = ready_s
        self.by_both: list[float] = []
        self.memory = [0, 0]
        self._programs = host, enclave
        (self._count,) = measured.answered

    def measure(self, seconds: float) -> None:
        """Take one turn."""
        before = sum(map(processor_seconds, self._programs))
        self.measured.measure(seconds)
        used = sum(map(processor_seconds, self._programs)) - before
        self.by_both.append(used / self.measured.answered[self._count][-1])
        self.memory = [program.resident_bytes() for program in self._programs]

    @property
    def rates(self) -> list[float]:
        """Signatures a second, in each turn."""
        return self.measured.rates[self._count]

    @property
    def busy(self) -> float:
        """Seconds of the processor for a signature, by both programs."""
        return median(self.by_both)

    def line(self, number: int) -> str:
        """Return a line of the table."""
        host, enclave = (used / MEGABYTE for used in self.memory)
        costs = f"{median(self.rates):>8.0f} {self.measured.latencies(self._count)} {self.busy * 1e3:>8.3f}"
        return f"{number:>6} {self.name:<5} {self.ready_s:>8.2f} {host:>8.0f} {enclave:>10.0f} {costs}"


HEAD = (
    f"{'keys':>6} {'':<5} {'ready s':>8} {'host MB':>8} {'enclave MB':>10} {'rate/s':>8} {LATENCY_HEAD} {'CPU ms':>8}"
)


def prepared(side: Side, folder: Path, enclave: Enclave, number: int) -> tuple[Path, list[str]]:
    """Make as many keys, their configuration and their store of marks; return the configuration and their hashes."""
    config = write_config(folder, enclave.port, watermark=WATERMARK)
    pkhs = keys_in(folder, config, KeyType.ED25519, number)
    side.configure(write_config(folder, enclave.port, dict.fromkeys(pkhs, BAKER), watermark=WATERMARK))
    made = [sys.executable, "-m", "host_backend", "watermark", "init", "-c", str(config)]
    subprocess.run(made, env={**os.environ, **environment_of(side.checkout)}, capture_output=True, check=True)
    return config, pkhs


def started(config: Path, checkout: Path = ROOT) -> tuple[Host, float]:
    """Start a host, and return it with the seconds until all of its keys could sign."""
    # With it, the host gets an interpreter of its own.
    environment = environment_of(checkout)
    begun = time.perf_counter()
    # A line for each key is slow to wait through, here.
    host = Host(config, "--no-list", environment=environment)
    try:
        host.wait_for("the link to the enclave is ready")
    except BaseException:
        host.discard()
        raise
    return host, time.perf_counter() - begun


def starts(folder: Path, number: int, turns: int) -> list[float]:
    """Return the seconds of some starts, of a host alone; the files are in the page cache."""
    folder.mkdir()
    with running_enclave(folder, "--retain", "0") as enclave:
        config, _ = prepared(Side(), folder, enclave, number)
        ready = []
        for _ in range(turns):
            host, seconds = started(config)
            host.discard()
            ready.append(seconds)
    return ready


@contextmanager
def with_keys(side: Side, folder: Path, number: int, program: Path | None) -> Iterator[Cost]:
    """Run a side with as many keys, each of which has signed; `program` asks from then on, if it is given."""
    folder.mkdir()
    with running_enclave(folder, *side.enclave_arguments, checkout=side.checkout) as enclave:
        config, pkhs = prepared(side, folder, enclave, number)
        host, ready_s = started(config, side.checkout)
        try:
            host.ready()
            count = min(CLIENTS, number)
            clients = [Client(host.port, *pkhs[place::count]) for place in range(count)]
            warming = Measured("", host, clients, [count])
            # The first signature of a key makes its marks.
            while min(each.level for each in clients) < 2:
                warming.measure(_LOOK_S)
            measured = Measured(side.name, host, clients, [count])
            if program is not None:
                # It may sign on a chain of its own, where no key has a mark yet.
                MeasuredByClient(program, measured).measure(max(number / FIRST_PER_S, _LOOK_S))
            yield Cost(MeasuredByClient(program, measured) if program else measured, host, enclave, ready_s)
        finally:
            host.discard()


def ratio(few: Cost, many: Cost) -> float:
    """Return how many times as much of the processor a signature costs with many keys as with few."""
    return many.busy / few.busy


def costs(
    folder: Path,
    numbers: Sequence[int],
    seconds: float,
    compared: Sequence[Side] = (Side(),),
    turns: int = 1,
    program: Path | None = None,
) -> list[list[Cost]]:
    """Measure some numbers of keys on all sides, print their lines, and return what they cost, a list for each number."""
    measured = []
    for number in numbers:
        with ExitStack() as stack:
            each = [
                stack.enter_context(with_keys(side, folder / f"{side.name}-{number}", number, program))
                for side in compared
            ]
            in_turn(each, turns, lambda one: one.measure(seconds))
        print(*(one.line(number) for one in each), sep="\n", flush=True)
        ready, rates = [[one.ready_s] for one in each], [one.rates for one in each]
        print_ratios([one.name for one in each], ready=ready, rate=rates, CPU=[one.by_both for one in each])
        measured.append(each)
    return measured


def main() -> None:
    """Print one line per number of keys and side, and their ratios."""
    parser = argparse.ArgumentParser(description="Measure what a signature costs, by the number of keys.")
    parser.add_argument("--keys", type=int, nargs="+", default=list(KEYS), help="(default: 10 to 10 000)")
    parser.add_argument("--turns", type=int, default=1, help="how often each is measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn (default: %(default)s)")
    add_folder_option(parser)
    add_side_options(parser)
    client.add_option(parser)
    options = parser.parse_args()
    compared = sides(options)
    print(f"{machine_line(options.folder)}, {client.load_text(options.client)}")
    print(HEAD)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measured = costs(Path(name), options.keys, options.seconds, compared, options.turns, options.client)
        for few, many in zip(measured[0], measured[-1], strict=True):
            print(f"{few.name}: CPU of a signature, most keys : fewest keys {ratio(few, many):.2f}")
        print_configurations(Path(name), compared, str(options.keys[0]))


if __name__ == "__main__":
    main()
