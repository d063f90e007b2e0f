"""Makes the application root of the image: the daemon, its libraries, its configuration, and nothing else.

- Libraries come as wheels whose hashes stand in `requirements-enclave.txt`. Which wheel is taken depends on the version of
  Python and on the processor, never on the machine that builds.
- The result depends on these files alone: names are sorted, times and owners are zero, there is no bytecode.
- A production root has no local sealer, no slow BLS, no test; and no keyprovider unless it is asked for.

usage: python3 image/root.py --image-toml FILE --out FOLDER
"""

import argparse
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from image.tree import digest, normalise, size_bytes

TOP = Path(__file__).parents[1]
ENCLAVE, HOST = TOP / "requirements-enclave.txt", TOP / "requirements.txt"
#: Within the root. The folder of the program is run by its name: Python then finds modules there and nowhere else.
PROGRAM = Path("usr/lib/enclave-signer")
HOST_PROGRAM = Path("usr/lib/enclave-host")
KEYPROVIDER_PROGRAM = Path("usr/lib/enclave-keyprovider")
IMAGE_TOML = Path("etc/enclave-signer/image.toml")
#: What the image trusts its servers by: tables of its configuration that name a file of authorities, and where it has the
#: public ones.
WITH_AUTHORITIES = ("kbs", "vault_transit")
PUBLIC_AUTHORITIES = "/usr/lib/ssl/cert.pem"
#: What the sample has where your own names belong.
PLACEHOLDER = "replace-me"
#: Of the daemon, and in no image: they only make files that exist already.
NEVER = ("curves/build_blst.py",)
#: A role of its own, in images that ask for it alone, and its library.
KEYPROVIDER = "keyprovider/"
KEYPROVIDER_LIBRARY = TOP / "requirements-keyprovider.txt"
#: Of the daemon, and in images for development alone.
DEVELOPMENT_ONLY = ("sealing/local.py", "curves/bls_py_ecc.py")
#: What an installed library has beside its code, and nothing reads here.
UNUSED = (
    "bin",
    "**/__pycache__",
    "**/tests",
    "**/_tests",
    "**/testing",
    "**/*.py[cix]",
    "**/*.pxd",
    "**/*.proto",
    "**/*.[ch]",
    "**/*.cc",
    "**/*.js",
    "**/py.typed",
)
#: What stays of the description of a library: its name and version, what it announces to others, and its licences.
DESCRIPTION = ("METADATA", "entry_points.txt", "licenses", "LICENSE", "COPYING", "NOTICE", "AUTHORS")
#: The C libraries that wheels may count on, newest first: the final image has Debian 12's, 2.36.
GLIBC_MINORS = range(36, 16, -1)
MAIN = '"""Runs the daemon from this folder."""\n\nfrom enclave_signer.__main__ import main\n\nmain()\n'
KEYPROVIDER_MAIN = (
    '"""Runs the keyprovider, which lies in the folder of the daemon."""\n\nimport sys\nfrom pathlib import Path\n\n'
    'sys.path[0] = str(Path(__file__).parents[1] / "enclave-signer")\n\n'
    "from enclave_signer.keyprovider.__main__ import main\n\nmain()\n"
)


class CannotMake(Exception):
    """The root cannot be made; the text says what to do."""


def fetch_wheels(wheels: Path, python: str, machine: str, requirements: Path = ENCLAVE) -> Path:
    """Return a folder in `wheels` with one wheel for each library; with the network only where it is not there yet."""
    folder = wheels / f"{requirements.stem}-{python}-{machine}"
    complete = folder / "complete"
    wanted = requirements.read_text()
    if complete.exists() and complete.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _pip("download", "--dest", str(folder), *_target(python, machine, requirements))
    complete.write_text(wanted)
    return folder


def make_root(
    out: Path,
    image_toml: Path,
    wheels: Path,
    *,
    python: str = "",
    machine: str = "",
    development: bool = False,
    keyprovider: bool = False,
) -> None:
    """Make the root in a folder that is not there yet, or is empty.

    Args:
        out: The folder.
        image_toml: What the image says of itself.
        wheels: Where wheels are kept.
        python: The version of Python in the image, as 3.11; default: of this interpreter.
        machine: The image's processor, as `uname -m` calls it; default: this one.
        development: Whether the local sealer comes in; then `image_toml` must say `development = true`, else it must not.
        keyprovider: Whether the keyprovider comes in, a program of its own.

    Raises:
        CannotMake: The configuration is not one for such an image, or pip failed.
    """
    python, machine = python or _this()[0], machine or _this()[1]
    if out.exists() and any(out.iterdir()):
        raise CannotMake(f"{out} is not empty")
    check_image_toml(image_toml, development=development)
    program = out / PROGRAM
    _install(program, wheels, python, machine, ENCLAVE)
    left_out = NEVER if development else NEVER + DEVELOPMENT_ONLY
    _copy_package("enclave_signer", program, left_out if keyprovider else (*left_out, KEYPROVIDER))
    (program / "__main__.py").write_text(MAIN)
    if keyprovider:
        _install(program, wheels, python, machine, KEYPROVIDER_LIBRARY)
        (out / KEYPROVIDER_PROGRAM).mkdir()
        (out / KEYPROVIDER_PROGRAM / "__main__.py").write_text(KEYPROVIDER_MAIN)
    (out / IMAGE_TOML).parent.mkdir(parents=True)
    shutil.copyfile(image_toml, out / IMAGE_TOML)
    for path in authorities(image_toml):
        shutil.copyfile(path, out / IMAGE_TOML.with_name(path.name))
    _check_by_the_daemon(program, out / IMAGE_TOML)
    normalise(out)


def make_host_root(out: Path, wheels: Path) -> None:
    """Make the root of an image of the host, for this interpreter.

    Raises:
        CannotMake: pip failed.
    """
    program = out / HOST_PROGRAM
    _install(program, wheels, *_this(), HOST)
    for name in ("enclave_signer", "host_backend"):
        _copy_package(name, program)
    normalise(out)


def _this() -> tuple[str, str]:
    return f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine()


def _install(program: Path, wheels: Path, python: str, machine: str, requirements: Path) -> None:
    folder = fetch_wheels(wheels, python, machine, requirements)
    program.mkdir(parents=True, exist_ok=True)
    where = ("--no-index", "--find-links", str(folder), "--target", str(program))
    _pip("install", "--no-compile", *where, *_target(python, machine, requirements))
    _remove_unused(program)


def _remove_unused(program: Path) -> None:
    unused = [path for pattern in UNUSED for path in program.glob(pattern)]
    unused += [path for path in program.glob("*.dist-info/*") if not path.name.startswith(DESCRIPTION)]
    for path in unused:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _copy_package(name: str, program: Path, left_out: Sequence[str] = ()) -> None:
    source = TOP / name
    for path in sorted(source.rglob("*.py")):
        within = path.relative_to(source)
        if not str(within).startswith(tuple(left_out)):
            target = program / name / within
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(TOP / "LICENSE", program / "LICENSE")


def check_image_toml(path: Path, *, development: bool) -> None:
    """Return when a configuration is one for such an image, as far as this can be checked without the daemon.

    Raises:
        CannotMake: It is the sample, for another kind of image, or cannot be read.
    """
    says = _read(path)
    if PLACEHOLDER in path.read_text():
        raise CannotMake(f"{path} is the sample, or still has {PLACEHOLDER!r} in it: put your own names there")
    if says.get("development", False) is not development:
        wanted = "must say development = true for" if development else "says development = true, so it is not for"
        raise CannotMake(f"{path} {wanted} {'an image for development' if development else 'a production image'}")
    authorities(path)


def authorities(image_toml: Path) -> list[Path]:
    """Return the files of authorities that a configuration names; they lie beside it, here as in the image.

    Raises:
        CannotMake: One is not there, or named elsewhere in the image.
    """
    says, found = _read(image_toml), []
    for table in WITH_AUTHORITIES:
        named = says[table].get("ca_file") if isinstance(says.get(table), dict) else None
        if isinstance(named, str) and named != PUBLIC_AUTHORITIES:
            path = image_toml.with_name(Path(named).name or "ca.pem")
            within = f"/{IMAGE_TOML.with_name(path.name)}"
            if named != within:
                raise CannotMake(f"{image_toml}: {table}.ca_file: {named} is in no image: put it beside, as {within}")
            if not path.is_file():
                raise CannotMake(f"{image_toml}: {table}.ca_file: there is no {path}")
            found.append(path)
    return found


def _read(image_toml: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(image_toml.read_text())
    except (OSError, ValueError) as error:
        raise CannotMake(f"{image_toml}: {error}") from None


def _check_by_the_daemon(program: Path, image_toml: Path) -> None:
    """Have the daemon that was just installed read its configuration, as it will at its start."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        "from enclave_signer.errors import ConfigError; from enclave_signer.image import read_image\n"
        "try: read_image(Path(sys.argv[2]))\nexcept ConfigError as error: sys.exit(str(error))"
    )
    command = [sys.executable, "-I", "-S", "-B", "-c", code, str(program), str(image_toml)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMake(done.stderr.strip())


def _target(python: str, machine: str, requirements: Path) -> list[str]:
    words = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--python-version", python]
    for minor in GLIBC_MINORS:
        words += ["--platform", f"manylinux_2_{minor}_{machine}"]
    return [*words, "--platform", f"manylinux2014_{machine}", "--requirement", str(requirements)]


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMake(f"pip {words[0]}: {done.stderr.strip()}")


def main(arguments: Sequence[str]) -> int:
    """Make a root and print its hash and size; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the application root of an image.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image-toml", type=Path, metavar="FILE", help="the enclave's: what the image says of itself")
    what.add_argument("--host", action="store_true", help="the host's")
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="where to make it")
    wheels = TOP / "build" / "wheels"
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", default=wheels, help="where wheels are kept")
    parser.add_argument("--python", metavar="3.11", default="", help="the image's Python (default: this one)")
    parser.add_argument("--machine", metavar="x86_64", default="", help="the image's processor (default: this one)")
    parser.add_argument("--development", action="store_true", help="with the local sealer: not for keys of value")
    parser.add_argument("--keyprovider", action="store_true", help="with the keyprovider, a program of its own")
    given = parser.parse_args(arguments)
    out, kept = given.out, given.wheels
    try:
        if given.host:
            make_host_root(out, kept)
        else:
            target = {"python": given.python, "machine": given.machine}
            roles = {"development": given.development, "keyprovider": given.keyprovider}
            make_root(out, given.image_toml, kept, **roles, **target)
    except CannotMake as error:
        sys.stderr.write(f"image root: {error}\n")
        return 1
    sys.stdout.write(f"root  sha256:{digest(out)}  {size_bytes(out) / 1e6:.1f} MB  {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
