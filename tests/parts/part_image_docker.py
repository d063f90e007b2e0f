"""Docker builds the same `Dockerfile`, by BuildKit: what comes out is no measured image, and runs."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from image.build import build_by_docker
from tests.doubles import built_image
from tests.doubles.image_root import image_toml
from tests.doubles.runtimes import running_docker

#: Seconds: an image takes half a minute on an idle machine.
pytestmark = pytest.mark.timeout(1200)


def test_docker_builds_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_docker(tmp_path) as docker:
        monkeypatch.setenv("DOCKER_HOST", docker[-1])
        base = os.environ.get("IMAGE_BASE")
        toml = image_toml(tmp_path)
        made = build_by_docker("production", toml, base=base, work=built_image.WORK, name="by-docker")
        assert made.startswith("sha256:")
        said = subprocess.run(
            [*docker, "run", "--rm", "--network", "host", "by-docker", "--version"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.stdout.startswith("enclave-signer "), said.stderr
        shown = [*docker, "image", "inspect", "--format={{json .Config.Labels}}", "by-docker"]
        labels = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)
        assert labels["tee.launch_policy.allow_cmd_override"] == "false"
