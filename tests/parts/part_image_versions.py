"""Two versions of buildah make one image: its digest says nothing of who built it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from image.layout import read_layout
from tests.doubles import built_image
from tests.doubles.image_root import image_toml
from tests.doubles.other_buildah import other_buildah
from tests.doubles.processes import ROOT

#: Seconds: an image takes half a minute on an idle machine, and the other buildah is fetched once.
pytestmark = pytest.mark.timeout(1800)
#: Kept from one run to the next.
OTHER = Path("/var/tmp/enclave-signer-parts/trixie")


def version(environment: dict[str, str]) -> str:
    said = subprocess.run(["buildah", "--version"], env=environment, capture_output=True, text=True, check=True)
    return said.stdout.split()[2]


def test_another_buildah_makes_the_same_image(tmp_path: Path) -> None:
    programs = other_buildah(OTHER, tmp_path)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    assert version(environment) != version({**os.environ})
    built = built_image.image("production")
    (tmp_path / "base.tar").symlink_to(built_image.WORK / "base.tar")
    command = [sys.executable, "image/build.py", "--image-toml", str(image_toml(tmp_path)), "--work", str(tmp_path)]
    command += ["--name", "production-of-parts", "--out", str(tmp_path / "out")]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    print(f"\nbuildah {version({**os.environ})} and {version(environment)}: {said.stdout}")
    assert read_layout(tmp_path / "out" / "oci").digest == read_layout(built / "oci").digest
