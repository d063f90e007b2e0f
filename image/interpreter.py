"""Copies the running Python into the root of an image: no shell, no package manager, no other program.

- Python's library comes without what the daemon cannot need.
- What it and the application are linked with comes along, and the certificates of public authorities.

The running Python must be the system's own, or one that lies in one folder as the official images have it.

usage: python3 image/interpreter.py --application FOLDER --out FOLDER
"""

import argparse
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from image.tree import normalise, size_bytes

#: Where each image has its interpreter, wherever it comes from.
PYTHON = Path("usr/bin/python3")
#: Parts of Python's library that need a terminal, a screen, another program or a compiler, or that test and teach.
UNUSED = (
    "__phello__",
    "config-*",
    "curses",
    "dbm",
    "dist-packages",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc*",
    "sitecustomize.py",
    "site-packages",
    "sqlite3",
    "test",
    "tkinter",
    "turtle*",
    "venv",
    "wsgiref",
    "xmlrpc",
    "EXTERNALLY-MANAGED",
    "**/test",
    "**/tests",
    "**/__pycache__",
    "**/*.rst",
    # Old protocols, debuggers, toys.
    "antigravity.py",
    "bdb.py",
    "cgi*.py",
    "doctest.py",
    "ftplib.py",
    "imaplib.py",
    "mailbox.py",
    "nntplib.py",
    "pdb.py",
    "poplib.py",
    "pty.py",
    "smtp*.py",
    "telnetlib.py",
    "this.py",
    "webbrowser.py",
    "unittest/__main__.py",
    "lib-dynload/_test*",
    "lib-dynload/_ctypes_test*",
    "lib-dynload/_xx*",
    "lib-dynload/xx*",
    "lib-dynload/_curses*",
    "lib-dynload/_dbm*",
    "lib-dynload/_gdbm*",
    "lib-dynload/_sqlite3*",
    "lib-dynload/_tkinter*",
    "lib-dynload/nis*",
    "lib-dynload/ossaudiodev*",
    "lib-dynload/readline*",
)
#: Places to mount something at, or that the daemon may write to.
EMPTY_FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp")
#: Names of machines are looked up in the file first, as everywhere.
NSSWITCH = "hosts: files dns\n"


def copy_interpreter(application: Path, out: Path) -> None:
    """Put the interpreter for an application root into a folder.

    Args:
        application: The root that it will run; what its extension modules are linked with comes along.
        out: A folder that is not there yet, or is empty.
    """
    library = out / "usr/lib" / Path(sysconfig.get_path("stdlib")).name
    (out / PYTHON).parent.mkdir(parents=True)
    shutil.copyfile(Path(sys.executable).resolve(), out / PYTHON)
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore_dangling_symlinks=True)
    for pattern in UNUSED:
        for path in sorted(library.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    _copy_shared_libraries([out / PYTHON, *library.rglob("*.so"), *application.rglob("*.so*")], out)
    for name in EMPTY_FOLDERS:
        (out / name).mkdir(exist_ok=True)
    (out / "etc/nsswitch.conf").write_text(NSSWITCH)
    certificates = Path(ssl.get_default_verify_paths().openssl_cafile)
    target = out / certificates.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", target)
    normalise(out)


def shared_libraries(files: Iterable[Path]) -> dict[str, Path]:
    """Return what files are linked with: the name that is looked for, and the file that has it here."""
    found: dict[str, Path] = {}
    for file in files:
        listed = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False).stdout
        if missing := re.findall(r"^\s*(\S+) => not found", listed, re.MULTILINE):
            sys.exit(f"image interpreter: {file} needs {', '.join(missing)}, which is not here")
        for name, path in re.findall(r"^\s*(?:(\S+) => )?(/\S+) \(0x", listed, re.MULTILINE):
            found[name or path] = Path(path)
    return found


def _copy_shared_libraries(files: Iterable[Path], out: Path) -> None:
    """Put each beside the C library, where the loader looks by itself."""
    found = shared_libraries(files)
    folder = found["libc.so.6"].parent
    for name, path in found.items():
        # The loader itself is named by its whole path.
        target = out / (path if name.startswith("/") else folder / name).relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.resolve(), target)


def main(arguments: Sequence[str]) -> int:
    """Copy it and print its size; return the exit code."""
    parser = argparse.ArgumentParser(description="Copy this Python into the root of an image.")
    parser.add_argument("--application", type=Path, metavar="FOLDER", required=True, help="the root that it will run")
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="where to put it")
    given = parser.parse_args(arguments)
    copy_interpreter(given.application, given.out)
    sys.stdout.write(f"interpreter {size_bytes(given.out) / 1e6:.1f} MB  {given.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
