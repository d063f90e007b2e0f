"""Lists the contents of the image, in CycloneDX's form.

Libraries stand there by name, version, licence and the hash of their description; what comes from the system, by the
packages of Debian that its files are from. Nothing in it depends on when or where it is made.

usage: python3 image/sbom.py --application FOLDER --interpreter FOLDER --out FILE
"""

import argparse
import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from email.parser import HeaderParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from image.tree import digest

Component = Mapping[str, object]
#: Source: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/.
SPEC_VERSION = "1.6"
#: Licences that libraries name by an expression of SPDX, or else in their own words.
_BY_EXPRESSION, _BY_NAME = "License-Expression", "License"


def sbom(application: Path, interpreter: Path) -> bytes:
    """Return the list for an application root and its interpreter."""
    components = [*_libraries(application), *_system(interpreter)]
    components.sort(key=lambda component: str(component["bom-ref"]))
    listed = {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": "enclave-signer",
                "version": _version(application),
                "hashes": [{"alg": "SHA-256", "content": digest(application)}],
            }
        },
        "components": components,
    }
    return json.dumps(listed, indent=1, sort_keys=True).encode() + b"\n"


def _version(application: Path) -> str:
    (line,) = (
        line
        for line in next(application.rglob("enclave_signer/__init__.py")).read_text().splitlines()
        if line.startswith("__version__")
    )
    return line.split('"')[1]


def _libraries(application: Path) -> Iterator[Component]:
    for description in application.rglob("*.dist-info/METADATA"):
        text = description.read_text()
        said = HeaderParser().parsestr(text)
        name = said["Name"].lower().replace("_", "-").replace(".", "-")
        reference = f"pkg:pypi/{name}@{said['Version']}"
        component = {
            "type": "library",
            "bom-ref": reference,
            "purl": reference,
            "name": name,
            "version": said["Version"],
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(text.encode()).hexdigest()}],
        }
        if said[_BY_EXPRESSION]:
            component["licenses"] = [{"expression": said[_BY_EXPRESSION]}]
        elif said[_BY_NAME]:
            component["licenses"] = [{"license": {"name": said[_BY_NAME].splitlines()[0]}}]
        yield component


def _system(interpreter: Path) -> Iterator[Component]:
    """Yield the packages of the system that files of the interpreter come from; and Python, where no package has it."""
    python = Path(sys.executable).resolve()
    shared = [Path("/") / path.relative_to(interpreter) for path in interpreter.rglob("lib*/*/lib*.so*")]
    owners = {owner for path in (python, *shared) for owner in _owner(path)}
    if not any(name.startswith("python") for name, _ in owners):
        version = platform.python_version()
        yield {"type": "library", "bom-ref": f"pkg:generic/python@{version}", "name": "python", "version": version}
    for name, version in owners:
        reference = f"pkg:deb/debian/{name}@{version}"
        yield {"type": "library", "bom-ref": reference, "purl": reference, "name": name, "version": version}


def _owner(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the package of Debian that has a file, which may be known by its place before `/usr` was merged."""
    for known in {path, path.resolve(), Path(str(path.resolve()).removeprefix("/usr")), Path("/usr", *path.parts[1:])}:
        done = subprocess.run(["dpkg-query", "--search", str(known)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            package = done.stdout.partition(": ")[0].partition(":")[0]
            shown = ["dpkg-query", "--show", "--showformat", "${Version}", package]
            yield package, subprocess.run(shown, capture_output=True, text=True, check=True).stdout
            return


def main(arguments: Sequence[str]) -> int:
    """Write the list; return the exit code."""
    parser = argparse.ArgumentParser(description="List the contents of the image.")
    parser.add_argument("--application", type=Path, metavar="FOLDER", required=True, help="its application root")
    parser.add_argument("--interpreter", type=Path, metavar="FOLDER", required=True, help="its interpreter")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="where to write it")
    given = parser.parse_args(arguments)
    given.out.write_bytes(sbom(given.application, given.interpreter))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
