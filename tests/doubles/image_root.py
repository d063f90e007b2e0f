"""The application root of an image, made as the image is, and run from where it was made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from image.root import PROGRAM
from tests.doubles.google.cloud import IMAGE
from tests.doubles.processes import PATIENCE_S, ROOT

WHEELS = ROOT / "build" / "wheels"
DEVELOPMENT = 'development = true\nsealers = ["local"]\n[local]\nsealing_key = "{}"\nmake_sealing_key = true\n'
#: What makes a root, beside the packages themselves.
SOURCES = ("LICENSE", "requirements-enclave.txt", "image", "enclave_signer")
#: Runs the daemon of the root in `argv[1]`, with the doubles of Google that lie below `argv[2]`.
WITH_DOUBLES = (
    "import sys; program, tests = sys.argv.pop(1), sys.argv.pop(1); sys.path.insert(0, program); sys.path.append(tests); "
    "from tests.doubles.gcp_enclave import main; main()"
)
#: Nothing of the machine that it runs on: no variable, no folder of the user, no installed library.
ISOLATED = ("-I", "-S", "-B")


def image_toml(folder: Path, text: str = IMAGE) -> Path:
    path = folder / "image.toml"
    path.write_text(text)
    return path


def make(out: Path, toml: Path, *more: str, source: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Make a root as `make image-root` does."""
    command = [sys.executable, str(source / "image" / "root.py"), "--image-toml", str(toml), "--out", str(out)]
    command += ["--wheels", str(WHEELS), *more]
    # The coverage of pip, which does most of it, is not wanted.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S * 5, env=clean, check=False)


def copied_source(folder: Path) -> Path:
    """Return another folder with what roots are made of."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def daemon(root: Path, *arguments: str) -> list[str]:
    """Return the command that runs the daemon of a root by this Python."""
    return [sys.executable, *ISOLATED, str(root / PROGRAM), *arguments]


def daemon_with_doubles(root: Path, *arguments: str) -> list[str]:
    """Return the command that runs it with doubles of Google's services."""
    return [sys.executable, *ISOLATED, "-c", WITH_DOUBLES, str(root / PROGRAM), str(ROOT), *arguments]
