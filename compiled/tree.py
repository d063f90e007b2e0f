"""`python -m compiled.tree WHEELS FOLDER`: a copy of this checkout, with the packages as the newest wheel in a folder has them.

Tests and benchmarks that run in the copy get the compiled modules, and are themselves as they are here.
"""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]
#: Not in the wheel, or made from other things.
_LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "*.so")


def newest(folder: Path) -> Path:
    """Return the newest wheel in a folder."""
    return max(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def copy_source(folder: Path) -> None:
    """Copy this checkout into a folder that is not there yet."""
    shutil.copytree(ROOT, folder, ignore=_left_out)


def make(wheel: Path, folder: Path) -> None:
    """Make the copy; what was in the folder before is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    copy_source(folder)
    with ZipFile(wheel) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if ".data/" not in name])


def _left_out(folder: str, names: list[str]) -> Iterable[str]:
    return _LEFT_OUT(folder, names)


def main() -> None:
    """Make the copy that the arguments ask for."""
    wheels, folder = map(Path, sys.argv[1:])
    make(newest(wheels), folder)


if __name__ == "__main__":
    main()
