"""The installed files: types for those who import it, and the documents that texts of the programs name."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.contract.rooms import ROOT

DOCUMENT = re.compile(r"\bdocs/[a-z-]+\.md\b")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: What this version does not do, in words that earlier texts had.
UNTRUE = re.compile(
    r"never leaves? (a|the) (confidential|enclave)|keys? (only|alone) in (a|the) confidential VM|keys in memory only",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (path,) = folder.iterdir()
    return zipfile.ZipFile(path).namelist()


def test_a_wheel_is_typed(wheel: list[str]) -> None:
    assert {"enclave_signer/py.typed", "host_backend/py.typed"} <= {*wheel}


def test_a_wheel_has_the_documents_that_its_texts_name(wheel: list[str]) -> None:
    shared = {re.sub(r"^[^/]+\.data/data/share/doc/enclave-signer/", "", name) for name in wheel}
    named = {
        name
        for package in ("enclave_signer", "host_backend")
        for path in (ROOT / package).rglob("*.py")
        for name in DOCUMENT.findall(path.read_text())
    }
    assert len(named) > 3
    assert named | {"README.md", "signatory.example.yaml"} <= shared


@pytest.mark.parametrize("path", ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))])
def test_documents_claim_nothing_of_keys_that_is_untrue(path: str) -> None:
    assert not UNTRUE.search((ROOT / path).read_text())


def test_the_summary_of_the_package_is_true() -> None:
    assert not UNTRUE.search(PROJECT["description"])
    # It is what `pip show` prints: the two halves are what there is.
    assert "two halves" in PROJECT["description"]


def test_the_library_imports_what_it_names(tmp_path: Path) -> None:
    script = "from host_backend import library\nprint(*(getattr(library, name) for name in library.__all__))"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT)
    example = tmp_path / "example.py"
    example.write_text(
        "from host_backend.library import Vault, KeyType, VaultKey\n\n\n"
        "async def main(vault: Vault) -> VaultKey:\n    return await vault.provisioning.generate(KeyType.BLS)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", str(example)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
