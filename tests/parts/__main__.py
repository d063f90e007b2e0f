"""`make parts`: tests that need more than Python and pip, one row a part: ran, failed, or what is not installed.

With `--all` it is an error when a part could not run: a test that did not run has shown nothing.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import which

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Part:
    """Tests, and what they need.

    Attributes:
        name: The module of its tests, without `part_`.
        missing: Returns what is not there; None when it can run.
    """

    name: str
    missing: Callable[[], str | None]


def _mounts() -> str | None:
    if os.geteuid() != 0:
        return "root, to mount"
    return None if which("mount") else "mount"


def _users() -> str | None:
    return None if os.geteuid() == 0 else "root, to be other users"


def _programs(*names: str) -> Callable[[], str | None]:
    return lambda: next((name for name in names if which(name) is None), None)


PARTS = (
    Part("mounts", _mounts),
    Part("users", _users),
    Part("proxies", _programs("nginx", "haproxy")),
    Part("java", _programs("java", "javac")),
    Part("metrics", _programs("promtool")),
    Part("go", _programs("go")),
)


def run(part: Part) -> str:
    """Run the tests of a part, and return what became of it."""
    if missing := part.missing():
        return f"not run: {missing} is missing"
    tests = HERE / f"part_{part.name}.py"
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", str(tests)], cwd=HERE.parents[1], check=False)
    return "ran" if done.returncode == 0 else f"FAILED (pytest exits with {done.returncode})"


def main(arguments: list[str]) -> int:
    outcomes = {part.name: run(part) for part in PARTS}
    width = max(map(len, outcomes))
    for name, outcome in outcomes.items():
        print(f"{name:<{width}}  {outcome}")
    if any(outcome.startswith("FAILED") for outcome in outcomes.values()):
        return 1
    return int("--all" in arguments and any(outcome != "ran" for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
