"""Scale: what a signature costs with 10 to 10 000 keys in one host, and how long the host takes to open them all.

`python -m benchmarks.scale [--keys N …]` starts `enclave-signer` with the local sealer, and `enclave-host serve` with keys
in a file. Ready is from the start of the host's process until every key can sign. Then every key signs once, and sixteen
clients ask for attestations by all keys in turn. The processor's time is that of both programs, for one signature.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.capacity import MEGABYTE, keys_in, running_enclave
from benchmarks.host import WATERMARK, Client, Measured, configuration_text
from benchmarks.machine import machine_line
from benchmarks.turns import (
    ERRORS,
    LATENCY_HEAD,
    ROOT,
    environment_of,
    latency_columns,
    processor_seconds,
)
from enclave_signer.protocol.key_types import KeyType
from tests.doubles.host_process import BAKER, CONFIG_NAME, Host, run_command, write_config
from tests.doubles.processes import Enclave

CLIENTS = 16
KEYS = (10, 100, 1000, 10_000)
#: Seconds after which it is looked whether all keys have signed.
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """What a number of keys costs.

    Attributes:
        ready: Seconds until all keys could sign, of each start.
        took: Seconds of each request.
        rate: Signatures a second.
        busy: Seconds of the processor for a signature, by both programs.
        host: Bytes of the host in memory, at the end.
        enclave: Bytes of the enclave in memory, at the end.
    """

    ready: list[float]
    took: list[float]
    rate: float
    busy: float
    host: int
    enclave: int

    def line(self, number: int) -> str:
        """Return a line of the table."""
        memory = f"{self.host / MEGABYTE:>8.0f} {self.enclave / MEGABYTE:>10.0f}"
        costs = f"{self.rate:>8.0f} {latency_columns(self.took)} {self.busy * 1e3:>8.3f}"
        return f"{number:>6} {median(self.ready):>8.2f} {memory} {costs}"


HEAD = f"{'keys':>6} {'ready s':>8} {'host MB':>8} {'enclave MB':>10} {'rate/s':>8} {LATENCY_HEAD} {'CPU ms':>8}"


def prepared(folder: Path, enclave: Enclave, number: int) -> tuple[Path, list[str]]:
    """Make as many keys, their configuration and their store of marks; return the configuration and their hashes."""
    config = write_config(folder, enclave.port, watermark=WATERMARK)
    pkhs = keys_in(folder, config, KeyType.ED25519, number)
    write_config(folder, enclave.port, dict.fromkeys(pkhs, BAKER), watermark=WATERMARK)
    made = run_command("watermark", "init", "-c", config)
    if made.code:
        raise SystemExit(made.stderr)
    return config, pkhs


def started(config: Path) -> tuple[Host, float]:
    """Start a host, and return it with the seconds until all of its keys could sign."""
    # With it, the host gets an interpreter of its own.
    environment = environment_of(ROOT)
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
        config, _ = prepared(folder, enclave, number)
        ready = []
        for _ in range(turns):
            host, seconds = started(config)
            host.discard()
            ready.append(seconds)
    return ready


def cost(folder: Path, number: int, seconds: float) -> Cost:
    """Measure a number of keys."""
    folder.mkdir()
    with running_enclave(folder) as enclave:
        config, pkhs = prepared(folder, enclave, number)
        host, ready = started(config)
        try:
            host.ready()
            count = min(CLIENTS, number)
            clients = [Client(host.port, *pkhs[place::count]) for place in range(count)]
            warming = Measured("", host, clients, [count])
            # The first signature of a key makes its marks.
            while min(client.level for client in clients) < 2:
                warming.measure(_LOOK_S)
            measured = Measured("", host, clients, [count])
            before = processor_seconds(host) + processor_seconds(enclave)
            measured.measure(seconds)
            (took,) = measured.turns[count]
            busy = (processor_seconds(host) + processor_seconds(enclave) - before) / len(took)
            (rate,) = measured.rates[count]
            return Cost([ready], took, rate, busy, host.resident_bytes(), enclave.resident_bytes())
        finally:
            host.discard()


def ratio(few: Cost, many: Cost) -> float:
    """Return how many times as much of the processor a signature costs with many keys as with few."""
    return many.busy / few.busy


def costs(folder: Path, numbers: Sequence[int], seconds: float) -> list[Cost]:
    """Measure some numbers of keys, and print a line for each."""
    measured = []
    for number in numbers:
        one = cost(folder / str(number), number, seconds)
        print(one.line(number), flush=True)
        measured.append(one)
    return measured


def main() -> None:
    """Print one line per number of keys."""
    parser = argparse.ArgumentParser(description="Measure what a signature costs, by the number of keys.")
    parser.add_argument("--keys", type=int, nargs="+", default=list(KEYS), help="(default: 10 to 10 000)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each number of keys (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="on which disk (default: %(default)s)")
    options = parser.parse_args()
    print(machine_line(options.folder))
    print(HEAD)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        measured = costs(Path(name), options.keys, options.seconds)
        print(f"CPU of a signature, most keys : fewest keys {ratio(measured[0], measured[-1]):.2f}")
        print(ERRORS, configuration_text(Path(name) / str(options.keys[0]) / CONFIG_NAME), sep="\n")


if __name__ == "__main__":
    main()
