"""A client of one's own that makes the load: `--client PROGRAM`, for one that is compiled, which takes less of the machine.

The program is started once for each turn, in one of three ways:

- `PROGRAM http --url URL --keys FILE --conns N --seconds S --base LEVEL`: N clients ask for attestations of keys whose
  hashes FILE has, a line each. Every key belongs to one client, and its levels rise from LEVEL.
- `PROGRAM burst --url URL --keys FILE --rounds N --base LEVEL`: all keys at once get a preattestation, then all at once an
  attestation; N times, at levels from LEVEL.
- `PROGRAM rpc --addr HOST:PORT --curve NAME --conns N --depth N --seconds S`: on each connection `Initialize` and
  `GenerateAndImport` come first, then `Sign`, so many in flight.

The last line that it prints is a JSON object: `n` requests, of them `errors`, in `s` seconds, and `p50_ms`, `p90_ms`,
`p99_ms`, `p999_ms`. Latency is from before a request is written until all of its answer is read. An error ends the run.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

#: Levels between turns: no turn gets so far, and a mark may move by more at once.
LEVELS = 100_000


@dataclass(frozen=True, slots=True)
class Report:
    """What a client says of one turn.

    Attributes:
        count: Requests, none of which failed.
        seconds: How long they took together.
        latencies: Seconds below which half of them stayed, nine in ten, 99 in 100, and 999 in 1000.
    """

    count: int
    seconds: float
    latencies: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.count / self.seconds


def read(output: str) -> Report:
    """Return what the last line says.

    Raises:
        SystemExit: There were errors, or no requests.
    """
    line = output.strip().rpartition("\n")[2]
    said = json.loads(line)
    if said["errors"] or not said["n"]:
        raise SystemExit(f"the client had errors, or nothing was asked: {line}")
    latencies = tuple(said[name] / 1e3 for name in ("p50_ms", "p90_ms", "p99_ms", "p999_ms"))
    return Report(said["n"], said["s"], latencies)


def run(program: Path, *arguments: object) -> Report:
    """Run a client for one turn, and return what it says."""
    command = [str(program.resolve()), *map(str, arguments)]
    return read(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def over_http(program: Path, address: tuple[str, int], pkhs: Sequence[str], *arguments: object) -> Report:
    """Run a client in the way that the arguments begin with, against a host."""
    host, port = address
    way, *others = arguments
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as keys:
        keys.write("".join(f"{pkh}\n" for pkh in pkhs))
        keys.flush()
        return run(program, way, "--url", f"http://{host}:{port}", "--keys", keys.name, *others)


def columns(reports: Sequence[Report]) -> str:
    """Return the medians of the turns' latencies, in milliseconds, as `turns.latency_columns` has them of requests."""
    return " ".join(f"{median(each) * 1e3:>8.3f}" for each in zip(*(one.latencies for one in reports), strict=True))


def load_text(program: Path | None) -> str:
    """Return what makes the load."""
    return f"load: {'compiled client' if program else 'Python'}"


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a client."""
    parser.add_argument(
        "--client", type=Path, metavar="PROGRAM", help="makes the load, as benchmarks/client.py asks (default: Python)"
    )
