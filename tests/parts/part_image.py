"""The measured image, built by buildah: twice it has one digest, and the scripts alone give its layer."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from image.build import PYTHON, build_image, make_base
from image.interpreter import EMPTY_FOLDERS
from image.layout import Built, read_layout
from image.root import TOP, CannotMake
from image.tree import digest, normalise, size_bytes
from tests.contract.markdown import DOCS, blocks
from tests.doubles import built_image, image_root
from tests.doubles.documented import run_block
from tests.doubles.google.cloud import IMAGE
from tests.doubles.image_root import image_toml

#: Seconds: an image takes half a minute on an idle machine.
pytestmark = pytest.mark.timeout(1200)

LIBRARIES = r"(c|m|pthread|rt|crypt|crypto|ssl|z|bz2-1\.0|bz2|lzma|expat|ffi|uuid|stdc\+\+|gcc_s)\.so[.0-9]*"
#: What the root has; the files of the program are looked at by the test of the application root.
KNOWN = re.compile(
    rf"usr/bin/python3|usr/lib/python{PYTHON}/.*\.(py|so|txt)|usr/lib/enclave-signer/.*|usr/lib/ssl/cert\.pem"
    rf"|etc/enclave-signer/image\.toml|etc/nsswitch\.conf|lib/[^/]+-linux-gnu/lib{LIBRARIES}|lib(64)?/ld-linux[^/]+"
)


@pytest.fixture(scope="module")
def built() -> Built:
    return read_layout(built_image.image("production") / "oci")


def configuration(built: Built) -> dict[str, dict[str, object]]:
    blobs = built.layers[0].parent
    manifest = json.loads((blobs / built.digest.removeprefix("sha256:")).read_text())
    config: dict[str, dict[str, object]] = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    return config


def test_two_builds_from_two_folders_have_one_digest(built: Built, tmp_path: Path) -> None:
    source = image_root.copied_source(tmp_path / "elsewhere")
    for name in ("Dockerfile", "requirements.txt"):
        shutil.copy(TOP / name, source)
    shutil.copytree(TOP / "host_backend", source / "host_backend")
    shutil.copytree(image_root.WHEELS, source / "build" / "wheels")
    (source / "build" / "base.tar").symlink_to(TOP / "build" / "base.tar")
    for number, path in enumerate(source.rglob("*.py")):
        os.utime(path, (number * 86400, number * 86400))
    command = [sys.executable, "image/build.py", "--image-toml", str(image_toml(tmp_path))]
    command += ["--name", "production-of-parts", "--out", str(tmp_path / "Out")]
    if "IMAGE_BASE" in os.environ:
        command += ["--base", os.environ["IMAGE_BASE"]]
    said = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert built.digest in said.stdout
    assert (tmp_path / "Out" / "sbom.json").read_bytes() == (built_image.KEPT / "production" / "sbom.json").read_bytes()
    print(f"\n{said.stdout}")


def test_the_scripts_alone_give_the_layer(built: Built, tmp_path: Path) -> None:
    base = tmp_path / "base"
    with tarfile.open(make_base(built_image.WORK / "base.tar")) as tar:
        tar.extraction_filter = getattr(tarfile, "tar_filter", None)
        tar.extractall(base)
    source = image_root.copied_source(base / "source")
    shutil.copytree(image_root.WHEELS, source / "build" / "wheels")
    image_toml(source)
    script = (
        f"cd /source && python3 image/root.py --python {PYTHON} --image-toml image.toml --out /made/application "
        "&& python3 image/interpreter.py --application /made/application --out /made/interpreter"
    )
    subprocess.run(["chroot", str(base), "sh", "-c", script], check=True)
    whole = tmp_path / "whole"
    for part in ("interpreter", "application"):
        shutil.copytree(base / "made" / part, whole, dirs_exist_ok=True)
    normalise(whole)
    (layer,) = built.layers
    assert digest(whole) == built_image.layer_digest(layer)
    assert configuration(built)["rootfs"]["diff_ids"] == [f"sha256:{digest(whole)}"]
    print(f"\nlayer sha256:{digest(whole)}, {size_bytes(whole)} bytes of files")


def test_every_file_of_the_root_is_known(built: Built, tmp_path: Path) -> None:
    root = built_image.unpacked("production", tmp_path / "root")
    assert {path.name for path in root.iterdir()} == {*EMPTY_FOLDERS, "lib", "lib64", "usr"}
    assert {path.name for path in (root / "usr/bin").iterdir()} == {"python3"}
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o7022 == 0, path
    names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    assert [name for name in names if not KNOWN.fullmatch(name)] == []


def test_the_image_says_what_may_be_set(built: Built) -> None:
    config = configuration(built)["config"]
    assert config["User"] == "65532:65532"
    assert config["ExposedPorts"] == {"2000/tcp": {}}
    assert config["Labels"] == {
        "tee.launch_policy.allow_cmd_override": "false",
        "tee.launch_policy.allow_env_override": "",
        "tee.launch_policy.log_redirect": "debugonly",
    }
    assert config["Entrypoint"][0] == "/usr/bin/python3"  # type: ignore[index]
    assert "Cmd" not in config
    # Whatever is in the environment is shown in each token.
    assert [str(each).partition("=")[0] for each in config["Env"]] == ["PATH"]  # type: ignore[attr-defined]


def test_a_base_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(CannotMake, match="refuse-to-build"):
        build_image(
            "production",
            image_toml(tmp_path),
            tmp_path / "out",
            base="refuse-to-build:name-a-base-by-its-digest",
            work=built_image.WORK,
            name="x",
        )


def test_an_image_for_development_is_called_otherwise(tmp_path: Path) -> None:
    toml = image_toml(tmp_path, image_root.DEVELOPMENT.format("/state/sealing.key"))
    with pytest.raises(CannotMake, match="is the name of the measured image"):
        build_image("development", toml, tmp_path / "out", base=None, work=built_image.WORK, name="enclave-signer")
    with pytest.raises(CannotMake, match="must say development = true"):
        build_image(
            "development", image_toml(tmp_path, IMAGE), tmp_path / "out", base=None, work=built_image.WORK, name="x"
        )


def test_the_documented_commands_build_it(built: Built, tmp_path: Path) -> None:
    page = DOCS / "confidential-space.md"
    copy = blocks(page, "shell")[0]
    (make,) = (block for block in blocks(page, "sh") if block.startswith("make image "))
    toml = tmp_path / "image.toml"
    run_block(copy, os.environ, {" image.toml": f" {toml}"})
    assert "replace-me" in toml.read_text()
    toml.write_text(IMAGE)
    said = run_block(make, os.environ, {"=image.toml": f"={toml}"})
    assert built.digest in said
