"""`python -m compiled.again WHEELS`: builds the newest wheel in a folder again, elsewhere, and compares them byte for byte.

The second build has another path of the source and of temporary files, another mask, time zone, language and hash seed. What
both share is the source, Python and its packages, and the compiler: with others of those, the bytes differ.
"""

import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

from compiled.tree import ROOT, copy_source, newest

_OTHERWISE = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "1", "HATCH_BUILD_HOOK_ENABLE_CUSTOM": "true"}


def build(folder: Path) -> Path:
    """Build a wheel of a copy of this checkout in a folder, and return its path."""
    source, temporary = folder / "of the same source" / ROOT.name, folder / "temporary"
    copy_source(source)
    temporary.mkdir()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    environment = {**os.environ, **_OTHERWISE, "TMPDIR": str(temporary)}
    subprocess.run(command, cwd=source, env=environment, check=True, umask=0o077, stdout=subprocess.DEVNULL)
    return newest(folder)


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs in two wheels: names of files, or that of the wheel if only how it is packed differs."""
    if one.read_bytes() == other.read_bytes():
        return []
    with ZipFile(one) as first, ZipFile(other) as second:
        names = {*first.namelist()} ^ {*second.namelist()}
        both = {*first.namelist()} & {*second.namelist()}
        return sorted(names | {name for name in both if first.read(name) != second.read(name)}) or [one.name]


def main() -> None:
    """Compare, and say what was found.

    Raises:
        SystemExit: They differ.
    """
    wheel = newest(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        if found := differences(wheel, build(Path(folder))):
            raise SystemExit(f"two builds differ in {', '.join(found)}")
    print(f"two builds are equal byte for byte: {wheel.name}, SHA-256 {sha256(wheel.read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
