"""The locked packages, and what their installed copies say of themselves."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, PackageMetadata, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What each program is installed from: the daemon as an image has it, the host with its extra for Google Cloud.
PROGRAMS = {"enclave-signer": "requirements-enclave.txt", "enclave-host": "requirements-host-gcp.txt"}
#: Every package that any environment of the project has, but those of the tools in environments of their own.
EVERYTHING = "requirements-dev.txt"
#: The ways in which packages name a licence before SPDX expressions, and the expression.
_SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-2-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
_LOCKED = re.compile(
    r"^([a-z0-9-]+)==([^ ]+).*?((?:\n    --hash=sha256:[0-9a-f]{64}.*)+)((?:\n    #.*)*)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Locked:
    """A package as a requirements file has it; `hashes` are those of its files, `via` what asks for it."""

    name: str
    version: str
    hashes: tuple[str, ...]
    via: tuple[str, ...]

    @property
    def purl(self) -> str:
        """The package's URL, as lists of components name it."""
        return f"pkg:pypi/{self.name}@{self.version}"


@cache
def locked(file: str) -> tuple[Locked, ...]:
    """Return the packages of a requirements file, in order."""
    return tuple(
        Locked(
            name,
            version,
            tuple(re.findall(r"sha256:([0-9a-f]{64})", hashes)),
            tuple(word for word in re.findall(r"[\w-]+(?= |$|\n)", via.replace("#", " ")) if word != "via"),
        )
        for name, version, hashes, via in _LOCKED.findall((ROOT / file).read_text())
    )


def licence(name: str) -> str:
    """Return the licence that an installed package names, as an SPDX expression where one is known; empty: none."""
    found = _installed(name)
    if found is None:
        return ""
    described = found.metadata
    named = _said(described, "License-Expression") or _said(described, "License")
    if not named or "\n" in named:
        classified = [line for line in described.get_all("Classifier", []) if line.startswith("License :: ")]
        named = classified[-1].rpartition(" :: ")[2] if classified else ""
    return _SPDX.get(named, named)


def size(name: str) -> int:
    """Return the bytes of an installed package's files, compiled copies left out; 0: it is not installed."""
    found = _installed(name)
    paths = [Path(str(file.locate())) for file in (found.files or [])] if found else []
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def _said(described: PackageMetadata, heading: str) -> str:
    return str((described.get_all(heading) or [""])[0])


def _installed(name: str) -> Distribution | None:
    """Return an installed package; None: this platform has no use for it, or the environment is another."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
