"""Fuzzes targets, each in a process of its own, and prints executions, coverage and crashes.

usage: python -m fuzz [--seconds N] [TARGET...]

An input that crashes, or hangs for ten seconds, is kept in `build/fuzz/TARGET/`; `python -m fuzz.one TARGET FILE` runs it
again. What is found beyond the corpus of the repository is kept there, too, and used by the next run.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.one import HANG_S
from fuzz.seeds import CORPUS
from fuzz.targets import TARGETS

#: Seconds for the modules to be instrumented, and for the last input.
_START_S = 180
_MEMORY_MB = 2048


def fuzz(target: str, seconds: int) -> tuple[str, bool]:
    """Fuzz one target; return its row, and whether anything was found."""
    folder = Path("build/fuzz", target)
    found = folder / "corpus"
    found.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fuzz.one", target, str(found), str(CORPUS / target)),
            *(f"-max_total_time={seconds}", f"-timeout={HANG_S}", f"-rss_limit_mb={_MEMORY_MB}"),
            *(f"-artifact_prefix={folder}/", "-print_final_stats=1", "-max_len=4096"),
        ],
        capture_output=True,
        timeout=seconds + _START_S,
        check=False,
    )
    said = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    (folder / "log").write_text(said)
    executions, edges = _last(r"number_of_executed_units: (\d+)", said), _last(r"cov: (\d+)", said)
    sound = done.returncode == 0 and executions != "0"
    faults = "none" if sound else f"exit code {done.returncode}, see {folder}/log"
    return f"{target:<22}{executions:>12}{edges:>10}  {faults}", not sound


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    return found[-1] if found else "0"


def main(arguments: Sequence[str]) -> int:
    """Fuzz; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz what reads bytes of others.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    given = parser.parse_args(arguments)
    if unknown := set(given.targets) - TARGETS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(f"{'target':<22}{'executions':>12}{'edges':>10}  crashes and hangs", flush=True)
    bad = 0
    for target in given.targets or TARGETS:
        row, found = fuzz(target, given.seconds)
        print(row, flush=True)
        bad += found
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
