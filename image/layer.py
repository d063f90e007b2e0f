"""Writes the one layer of the measured image: builders differ in how they write an archive, and in how they compress it.

It is compressed by the Python of the base: the same base gives the same layer, with any builder.

usage: python3 image/layer.py --application FOLDER --interpreter FOLDER --out FILE
"""

import argparse
import gzip
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from image.tree import archive, normalise

#: The smallest; it takes some ten seconds.
_LEVEL = 9


def write_layer(parts: Sequence[Path], out: Path) -> None:
    """Write the archive of some folders together, compressed; it names neither its file nor a time."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        for part in parts:
            shutil.copytree(part, whole, dirs_exist_ok=True)
        normalise(whole)
        with out.open("wb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as layer:
            for piece in archive(whole):
                layer.write(piece)


def main(arguments: Sequence[str]) -> int:
    """Write a layer; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the layer of the measured image.")
    parser.add_argument("--application", type=Path, required=True, metavar="FOLDER", help="its application root")
    parser.add_argument("--interpreter", type=Path, required=True, metavar="FOLDER", help="its interpreter")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write it")
    given = parser.parse_args(arguments)
    write_layer([given.interpreter, given.application], given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
