"""The application root of the image: made twice it is the same, it has what it needs and nothing else, and it signs."""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from image.root import (
    DEVELOPMENT_ONLY,
    IMAGE_TOML,
    KEYPROVIDER_PROGRAM,
    PROGRAM,
    PUBLIC_AUTHORITIES,
    TOP,
    CannotMake,
    authorities,
)
from image.tree import digest, size_bytes
from tests.contract.markdown import DOCS, blocks
from tests.contract.test_packaging import of_the_host, pinned
from tests.doubles import image_root
from tests.doubles.certificates import Authority
from tests.doubles.documented import run_block
from tests.doubles.google.cloud import IMAGE, running_google_cloud
from tests.doubles.kbs import KbsDouble, server_tls
from tests.doubles.kbs_image import KEK, RESOURCE, kbs_image
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.processes import PATIENCE_S, Enclave, kept
from tests.doubles.wire import WireClient

VAULT = (
    'sealers = ["vault_transit"]\n[vault_transit]\naddress = "https://vault.example:8200"\nca_file = "{}"\n'
    'seal_keys = ["vault_transit:vault.example:8200/transit/tezos"]\n'
    '[vault_transit.login]\nmethod = "jwt"\nrole = "signer"\naudience = "https://vault.example"\n'
)
#: What may lie in a root: Python, extension modules, licences and descriptions, and certificates of two libraries.
KNOWN_FILES = re.compile(
    r".*\.py|.*\.so|[^/]+\.dist-info/(METADATA|entry_points\.txt|licenses/.*|LICENSE.*|COPYING.*|NOTICE.*|AUTHORS.*)"
    r"|LICENSE|certifi/cacert\.pem|grpc/_cython/_credentials/roots\.pem"
    r"|google/cloud/kms_v1/gapic_metadata\.json|pycparser/_c_ast\.cfg|[a-z]+\.libs/.*\.so[.0-9]*"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    made = image_root.make(folder / "root", image_root.image_toml(folder))
    assert made.returncode == 0, made.stderr
    assert f"sha256:{digest(folder / 'root')}" in made.stdout
    print(f"\n{made.stdout}{size_bytes(folder / 'root')} bytes")
    return folder / "root"


def files(root: Path) -> Iterator[str]:
    for path in sorted((root / PROGRAM).rglob("*")):
        if path.is_file():
            yield str(path.relative_to(root / PROGRAM))


def test_two_roots_from_two_folders_on_two_days_are_one(root: Path, tmp_path: Path) -> None:
    source = image_root.copied_source(tmp_path)
    for number, path in enumerate(source.rglob("*")):
        os.utime(path, (number * 86400, number * 86400))
        path.chmod(0o700)
    made = image_root.make(tmp_path / "root", image_root.image_toml(tmp_path), source=source)
    assert made.returncode == 0, made.stderr
    assert digest(tmp_path / "root") == digest(root)
    image_root.image_toml(tmp_path, IMAGE + "read_legacy = false\n")
    assert image_root.make(tmp_path / "other", tmp_path / "image.toml").returncode == 0
    assert digest(tmp_path / "other") != digest(root)


def test_every_file_of_a_root_is_known(root: Path) -> None:
    assert [name for name in files(root) if not KNOWN_FILES.fullmatch(name)] == []
    assert not [name for name in files(root) if re.search(r"(^|/)_?tests?/", name)]
    assert (root / IMAGE_TOML).read_text() == IMAGE
    outside = [path for path in root.rglob("*") if path.is_file() and root / PROGRAM not in path.parents]
    assert outside == [root / IMAGE_TOML]
    for path in root.rglob("*"):
        assert not path.is_symlink()
        assert (path.stat().st_mode & 0o777, path.stat().st_mtime) == (0o755 if path.is_dir() else 0o644, 0), path


def test_a_root_has_the_daemon_and_its_libraries_and_nothing_of_the_host(root: Path) -> None:
    names = {path.name for path in (root / PROGRAM).iterdir()}
    installed = {re.sub(r"[._]", "-", name.split("-")[0]).lower() for name in names if "dist-info" in name}
    assert installed == set(pinned("requirements-enclave.txt"))
    assert not {"host_backend", "py_ecc", "uvicorn", "starlette"} & names
    assert not installed & of_the_host()
    ours = {str(path.relative_to(TOP / "enclave_signer")) for path in (TOP / "enclave_signer").rglob("*.py")}
    there = {name.removeprefix("enclave_signer/") for name in files(root) if name.startswith("enclave_signer/")}
    of_the_keyprovider = {name for name in ours if name.startswith("keyprovider/")}
    assert len(of_the_keyprovider) > 10
    assert ours - there == {*DEVELOPMENT_ONLY, "curves/build_blst.py", *of_the_keyprovider}
    assert there <= ours


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = image_root.daemon(root, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env={}, check=False)


def test_a_root_runs_as_it_is(root: Path, tmp_path: Path) -> None:
    assert run(root, "--version").stdout.startswith("enclave-signer ")
    key = str(tmp_path / "sealing.key")
    for arguments in (
        ["--sealing-key", key],
        ["--image", str(image_root.image_toml(tmp_path, image_root.DEVELOPMENT.format(key)))],
    ):
        refused = run(root, *arguments)
        assert refused.returncode == 2
        assert "the local sealer is in images for development alone" in refused.stderr
    refused = run(root, "--image", str(root / IMAGE_TOML), "--listen", "127.0.0.1:0", "--slow-bls")
    assert (refused.returncode, "py_ecc is missing" in refused.stderr) == (1, True)


def core_limits(enclave: Enclave) -> list[str]:
    """Return how long a core dump of a daemon may be, and may be allowed to be."""
    lines = Path(f"/proc/{enclave.pid}/limits").read_text().splitlines()
    (core,) = (line for line in lines if line.startswith("Max core file size"))
    return core.split()[4:6]


def test_a_root_is_started_by_its_entry_point_and_leaves_no_core_dump(root: Path) -> None:
    command = image_root.daemon(root, "--listen", "127.0.0.1:0", "--image", str(root / IMAGE_TOML))
    assert resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
    with kept(Enclave(["env", "-i", *command])) as enclave:
        assert core_limits(enclave) == ["0", "0"]


def test_a_root_signs(root: Path, tmp_path: Path) -> None:
    with running_google_cloud(tmp_path) as cloud:
        command = image_root.daemon_with_doubles(root, "--listen", "127.0.0.1:0", "--image", str(root / IMAGE_TOML))
        with kept(Enclave(command, cloud.environment())) as enclave, WireClient(enclave.address) as client:
            for handle, key in enumerate(FOUR):
                assert "Ok" in client.call({"GenerateAndImport": key.key_type.value})
                call = {"Sign": {"handle": handle, "message": attestation(7), "version": 2}}
                assert "Ok" in client.call(call)
            modules = Path(f"/proc/{enclave.pid}/maps").read_text()
    extensions = {Path(line.split()[-1]) for line in modules.splitlines() if ".so" in line and "dist" not in line}
    libraries = [path for path in extensions if "grpc" in str(path) or "nacl" in str(path) or "cbor2" in str(path)]
    assert libraries
    assert all(root in path.parents for path in libraries)


def test_a_root_has_what_every_sealer_needs(root: Path, tmp_path: Path) -> None:
    broker, authority = KbsDouble(), Authority(tmp_path, "authority")
    broker.resources = {RESOURCE: KEK}
    with broker.serving(server_tls(authority)):
        toml = image_root.image_toml(tmp_path, kbs_image(broker.url, authority.file))
        command = image_root.daemon(root, "--listen", "127.0.0.1:0", "--image", str(toml))
        with kept(Enclave(["env", "-i", *command])) as enclave, WireClient(enclave.address) as client:
            assert "Ok" in client.call({"Generate": "Bls"})
    # Its library is imported at the start, its server asked for the first client.
    toml = image_root.image_toml(tmp_path, VAULT.format(authority.file))
    command = image_root.daemon(root, "--listen", "127.0.0.1:0", "--image", str(toml))
    with kept(Enclave(["env", "-i", *command])) as enclave:
        assert "listening on 127.0.0.1:" in enclave.log


def test_authorities_lie_beside_the_configuration(root: Path, tmp_path: Path) -> None:
    within = f"/{IMAGE_TOML.with_name('ca.pem')}"
    toml = image_root.image_toml(tmp_path, VAULT.format(within))
    with pytest.raises(CannotMake, match=r"vault_transit\.ca_file: there is no .*/ca\.pem"):
        authorities(toml)
    (tmp_path / "ca.pem").write_bytes(Authority(tmp_path, "authority").file.read_bytes())
    made = image_root.make(tmp_path / "root", toml)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "root" / within[1:]).read_bytes() == (tmp_path / "ca.pem").read_bytes()
    assert {*files(tmp_path / "root")} == {*files(root)}
    image_root.image_toml(tmp_path, VAULT.format(PUBLIC_AUTHORITIES))
    assert authorities(toml) == []
    elsewhere = image_root.image_toml(tmp_path, VAULT.format("/elsewhere/ca.pem"))
    refused = image_root.make(tmp_path / "other", elsewhere)
    assert (refused.returncode, f"is in no image: put it beside, as {within}" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ((TOP / "image" / "image.example.toml").read_text(), (), "is the sample"),
        (image_root.DEVELOPMENT.format("/k"), (), "is not for a production image"),
        (IMAGE, ("--development",), "must say development = true"),
        (IMAGE.replace("gcp_kms", "kms", 1), (), "'kms' is not known"),
        ("sealers = [", (), "image.toml"),
    ],
)
def test_a_configuration_of_another_image_is_refused(
    tmp_path: Path, text: str, flags: tuple[str, ...], said: str
) -> None:
    made = image_root.make(tmp_path / "root", image_root.image_toml(tmp_path, text), *flags)
    assert (made.returncode, said in made.stderr, "Traceback" in made.stderr) == (1, True, False), made.stderr


def test_an_image_for_development_has_the_local_sealer_and_the_keyprovider_if_asked(tmp_path: Path) -> None:
    text = image_root.DEVELOPMENT.format(tmp_path / "sealing.key")
    flags = ("--development", "--keyprovider")
    made = image_root.make(tmp_path / "root", image_root.image_toml(tmp_path, text), *flags)
    assert made.returncode == 0, made.stderr
    command = image_root.daemon(
        tmp_path / "root", "--image", str(tmp_path / "root" / IMAGE_TOML), "--listen", "127.0.0.1:0"
    )
    with kept(Enclave(command)) as enclave, WireClient(enclave.address) as client:
        assert "Ok" in client.call({"Generate": "Bls"})
        assert core_limits(enclave) == ["0", "0"]
    config = tmp_path / "keyprovider.toml"
    config.write_text(
        f'image = "{tmp_path / "root" / IMAGE_TOML}"\n[[keks]]\nid = "k"\nfile = "{tmp_path / "k.kek"}"\n'
    )
    program = [sys.executable, *image_root.ISOLATED, str(tmp_path / "root" / KEYPROVIDER_PROGRAM)]
    subprocess.run([*program, "store-kek", "k", "--config", config], check=True, capture_output=True, env={})
    refused = subprocess.run(
        [*program, "serve", "--config", config], check=False, capture_output=True, text=True, env={}
    )
    assert (refused.returncode, "listeners: name" in refused.stderr) == (2, True)


def test_the_documented_command_makes_it(root: Path, tmp_path: Path) -> None:
    (command,) = (
        block for block in blocks(DOCS / "confidential-space.md", "sh") if block.startswith("make image-root ")
    )
    toml = image_root.image_toml(tmp_path)
    said = run_block(command, os.environ, {"=image.toml": f"={toml}", "OUT=build/root": f"OUT={tmp_path / 'root'}"})
    assert f"root  sha256:{digest(root)}" in said


@pytest.mark.parametrize("module", ["image.root", "image.build"])
def test_there_is_no_default_and_the_sample_is_refused(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-m", module, "--out", str(tmp_path / "out")]
    without = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert (without.returncode, "--image-toml" in without.stderr or "IMAGE_TOML" in without.stderr) == (2, True)
    command += ["--image-toml", "image/image.example.toml"]
    sample = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert (sample.returncode, "is the sample" in sample.stderr) == (1, True), sample.stderr
    assert not (tmp_path / "out").exists()
