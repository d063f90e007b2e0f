"""An image of the daemon installs what the daemon imports, and nothing of the host; what it installs is what was tested."""

import re
import sys
import tomllib
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.build import build_wheel

from tests.contract.rooms import IMPORTS, ROOT, within

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: Where the name to install is not the name to import.
INSTALLED_AS = {
    "_cffi_backend": "cffi",
    "nacl": "pynacl",
    "OpenSSL": "pyopenssl",
    "grpc": "grpcio",
    "google": "google-cloud-kms",
}
#: Its library is taken out of the package and called without importing it.
NEVER_IMPORTED = {"ckzg"}
#: Of the extra `slow-bls`.
NEVER_IN_AN_IMAGE = {"py_ecc", "eth_typing"}


def pinned(file: str) -> dict[str, str]:
    """Return the versions of a requirements file, by name."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / file).read_text(), re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~ ;\[]", requirement)[0] for requirement in requirements}


def of_the_host() -> set[str]:
    return names(PROJECT["project"]["dependencies"]) - names(PROJECT["dependency-groups"]["enclave"])


def test_the_daemons_dependencies_are_stated_alike() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    group = PROJECT["dependency-groups"]["enclave"]
    sealers = [*dict.fromkeys(chain(*(extras[f"enclave-{sealer}"] for sealer in ("gcp", "vault", "kbs"))))]
    assert group[-len(sealers) :] == sealers
    shared = group[: -len(sealers)]
    assert PROJECT["project"]["dependencies"][: len(shared)] == shared


def test_the_daemon_imports_what_an_image_installs() -> None:
    libraries = {
        other.partition(".")[0]
        for name, imported in IMPORTS.items()
        if within(name, ("enclave_signer",)) and not within(name, ("enclave_signer.keyprovider",))
        for other in imported
    }
    libraries -= {*sys.stdlib_module_names, *NEVER_IN_AN_IMAGE, "enclave_signer"}
    installed = {INSTALLED_AS.get(library, library) for library in libraries} | NEVER_IMPORTED
    assert installed == names(PROJECT["dependency-groups"]["enclave"])


def test_the_keyprovider_has_one_library_more() -> None:
    libraries = {
        other.partition(".")[0]
        for name, imported in IMPORTS.items()
        if within(name, ("enclave_signer.keyprovider",))
        for other in imported
    }
    extra = names(PROJECT["project"]["optional-dependencies"]["keyprovider"])
    assert libraries - {*sys.stdlib_module_names, "enclave_signer"} == extra | {"cryptography", "trio"}
    tested, installed = pinned("requirements-dev.txt"), pinned("requirements-keyprovider.txt")
    assert extra <= installed.keys()
    assert installed == {name: tested[name] for name in installed}
    assert not installed.keys() & pinned("requirements-enclave.txt").keys()


def test_an_image_has_nothing_of_the_host() -> None:
    assert {"uvicorn", "starlette", "click", "pyjwt"} <= of_the_host()
    installed = pinned("requirements-enclave.txt")
    assert not of_the_host() & set(installed)
    assert names(PROJECT["dependency-groups"]["enclave"]) <= set(installed)


def test_an_image_has_the_versions_that_were_tested() -> None:
    tested = pinned("requirements-dev.txt")
    assert {name: tested[name] for name in pinned("requirements-enclave.txt")} == pinned("requirements-enclave.txt")
    text = (ROOT / "requirements-enclave.txt").read_text()
    assert text.count("\n    --hash=") > len(pinned("requirements-enclave.txt"))


def test_a_host_in_google_cloud_has_the_versions_that_were_tested_and_no_sealer() -> None:
    tested, installed = pinned("requirements-dev.txt"), pinned("requirements-host-gcp.txt")
    assert installed == {name: tested[name] for name in installed}
    for extra in ("host-gcp", "host-gcs"):
        assert names(PROJECT["project"]["optional-dependencies"][extra]) <= set(installed)
    assert pinned("requirements.txt").keys() <= installed.keys()
    assert "google-cloud-kms" not in installed


def test_a_wheel_has_what_an_installation_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        names = {name.partition(".data/data/")[2] for name in wheel.namelist()}
    wanted = [path for path in (ROOT / "contrib").rglob("*") if path.is_file()]
    assert len(wanted) >= 5
    assert {f"share/enclave-signer/{path.relative_to(ROOT)}" for path in wanted} <= names
    assert {"share/enclave-signer/requirements.txt", "share/enclave-signer/requirements-host-gcp.txt"} <= names
