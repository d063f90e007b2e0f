"""The sides of a comparison, measured in turn, as machines are noisy: the ratios of turns count.

Beside this checkout stands another one (`--old`), or another configuration (`--host-line`, `--enclave-argument`), or both;
and a peer (`--peer`), which is any program that speaks the same wire or HTTP. The programs of another checkout run in the
environment of this one, and take their packages from there.
"""

import argparse
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import TypeVar

from tests.doubles.processes import Program

ROOT = Path(__file__).parents[1]
_WHERE = "import enclave_signer, host_backend; print(*enclave_signer.__path__, *host_backend.__path__, sep='\\n')"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: both programs of a checkout with a configuration, or a peer.

    Attributes:
        name: What tables call it.
        checkout: Whose programs are started.
        host_lines: Lines of the host's configuration, which stand in place of those that begin alike, or beside the others.
        enclave_arguments: More arguments of the daemon.
        peer: Host and port of a peer; empty where programs of a checkout are started.
    """

    name: str = "this"
    checkout: Path = ROOT
    host_lines: Sequence[str] = ()
    enclave_arguments: Sequence[str] = ()
    peer: str = ""

    def configure(self, config: Path) -> None:
        """Put its lines into a configuration of the host."""
        lines = config.read_text().splitlines()
        for line in self.host_lines:
            key, _, _ = line.partition(":")
            lines = [*(each for each in lines if not each.startswith(f"{key}:")), line]
        config.write_text("\n".join(lines) + "\n")

    @property
    def text(self) -> str:
        """What it is."""
        what = self.peer or " ".join(map(str, (self.checkout, *self.enclave_arguments, *self.host_lines)))
        return f"{self.name}: {what}"

    @property
    def peer_address(self) -> tuple[str, int]:
        """Where the peer listens."""
        host, _, port = self.peer.rpartition(":")
        return host, int(port)


def add_side_options(parser: argparse.ArgumentParser, *, peer: str = "") -> None:
    """Add the options that say what to compare with; `peer` says what a peer is, where there can be one."""
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="another checkout, to compare with")
    for name, metavar, what in (
        ("--host-line", "LINE", "a line of the configuration of the other host, such as 'watermark: {driver: mem}'"),
        ("--enclave-argument", "ARGUMENT", "of the other daemon, such as --enclave-argument=--no-guard"),
    ):
        parser.add_argument(name, action="append", default=[], metavar=metavar, help=f"{what}; may be repeated")
    if peer:
        parser.add_argument("--peer", default="", metavar="HOST:PORT", help=peer)
    else:
        parser.set_defaults(peer="")


def sides(options: argparse.Namespace) -> list[Side]:
    """Return this checkout, and what the options say to compare it with."""
    found = [Side()]
    if options.old or options.host_line or options.enclave_argument:
        checkout = options.old.resolve() if options.old else ROOT
        found.append(Side("other", checkout, options.host_line, options.enclave_argument))
    if options.peer:
        found.append(Side("peer", peer=options.peer))
    return found


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
    # The processor's time comes in hundredths of a second: a short turn may have none.
    ratios = sorted(one / other for one, other in zip(new, old, strict=True) if other)
    if not ratios:
        return "unknown"
    quarter = len(ratios) // 4
    return f"{median(ratios):.2f} ({ratios[quarter]:.2f} to {ratios[-1 - quarter]:.2f})"


def print_ratios(names: Sequence[str], **figures: Sequence[Sequence[float]]) -> None:
    """Print a line for each other side: the ratios of this side's figures to its own, turn by turn.

    Args:
        names: Of the sides; this one comes first.
        figures: For each side, those of its turns. Those not known of a side are left out.
    """
    for place, name in enumerate(names[1:], 1):
        known = {figure: of for figure, of in figures.items() if not isnan(sum(of[place]))}
        ratios = (f"{figure.replace('_', ' ')} {ratio_text(of[0], of[place])}" for figure, of in known.items())
        print(f"{'':>13} this : {name}, {', '.join(ratios)}", flush=True)


def column(value: float, width: int, digits: int) -> str:
    """Return a number as a column of a table, and a dash where it is not known."""
    return f"{'-':>{width}}" if isnan(value) else f"{value:>{width}.{digits}f}"


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


def processor_seconds(program: Program | None) -> float:
    """Return the processor's time that a program has taken so far; not a number of a peer. Source: proc_pid_stat(5)."""
    if program is None:
        return nan
    user, system = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def sealing_key_in(folder: Path) -> Path:
    """Make a key file for the local sealer, which not every version makes by itself."""
    path = folder / "sealing.key"
    path.touch(0o600)
    path.write_bytes(secrets.token_bytes(32))
    return path
