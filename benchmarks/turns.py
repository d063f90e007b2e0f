"""Two checkouts of this repository, measured in turn, as machines are noisy: the ratios of turns count.

The programs of another checkout run in the environment of this one, and take their packages from there.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from tests.doubles.processes import Program

ROOT = Path(__file__).parents[1]
_WHERE = "import enclave_signer, host_backend; print(*enclave_signer.__path__, *host_backend.__path__, sep='\\n')"

T = TypeVar("T")


def environment_of(checkout: Path) -> dict[str, str]:
    """Return what to add to the environment of a program so that it is one of a checkout.

    Raises:
        SystemExit: It would be another.
    """
    added = {"PYTHONPATH": str(checkout), "PYTHONSAFEPATH": "1"}
    # As pip does when it installs a program: a start must not compile it again.
    folders = [checkout / name for name in ("enclave_signer", "host_backend")]
    subprocess.run([sys.executable, "-m", "compileall", "-q", *folders], check=True)
    output = subprocess.run(
        [sys.executable, "-c", _WHERE], env={**os.environ, **added}, stdout=subprocess.PIPE, check=True
    )
    packages = [Path(line) for line in output.stdout.decode().splitlines()]
    if packages != folders:
        raise SystemExit(f"{checkout} is no checkout of this repository: programs started there take {packages}")
    return added


def in_turn(measured: Sequence[T], turns: int, measure: Callable[[T], None]) -> None:
    """Measure everything in turn; what came first is the last one in the next turn."""
    for turn in range(turns):
        for one in measured if turn % 2 == 0 else reversed(measured):
            measure(one)


def ratio_text(new: Iterable[float], old: Iterable[float]) -> str:
    """Return the median of the ratios within each turn, and the middle half of them."""
    ratios = sorted(one / other for one, other in zip(new, old, strict=True))
    quarter = len(ratios) // 4
    return f"{median(ratios):.2f} ({ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f})"


def quantile(values: Iterable[float], part: float) -> float:
    """Return the value below which a part of them lies; 0.5 is the median."""
    ordered = sorted(values)
    return ordered[int(len(ordered) * part)]


#: The parts of `latency_columns`.
PARTS = (0.5, 0.9, 0.99, 0.999)
#: What stands above `latency_columns`.
LATENCY_HEAD = " ".join(f"{f'p{part * 100:g} ms':>8}" for part in PARTS)
#: Benchmarks print no number of errors other than this.
ERRORS = "errors: 0 (a request that is refused, or gets no answer, ends the run)"


def latency_columns(seconds: Sequence[float]) -> str:
    """Return how long requests took, in milliseconds: columns of a table."""
    return " ".join(f"{quantile(seconds, part) * 1e3:>8.3f}" for part in PARTS)


def processor_seconds(program: Program) -> float:
    """Return the processor's time that a program has taken so far. Source: proc_pid_stat(5)."""
    user, system = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def sealing_key_in(folder: Path) -> Path:
    """Make a key file for the local sealer, which not every version makes by itself."""
    path = folder / "sealing.key"
    path.touch(0o600)
    path.write_bytes(secrets.token_bytes(32))
    return path
