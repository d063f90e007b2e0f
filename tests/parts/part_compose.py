"""`compose.yaml`: both programs in containers, which are removed and made again; nothing is signed twice."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import built_image
from tests.doubles.host_process import BAKER, ask
from tests.doubles.known_keys import attestation
from tests.doubles.processes import ROOT
from tests.doubles.runtimes import USER, running_docker

DEVELOPMENT = (ROOT / "image" / "development.toml").read_text()
CONFIG = (ROOT / "image" / "signatory.development.yaml").read_text()
OTHER = bytes(range(32))
IMAGES = {"development": (DEVELOPMENT, "enclave-signer-development"), "host": (None, "enclave-host")}
#: Where the documented configuration listens, and the test does.
PORTS = {"6732": "26732", "9583": "29583"}


class Composed:
    """The containers of `compose.yaml`, their state in a folder."""

    def __init__(self, docker: list[str], state: Path) -> None:
        self._docker = docker
        self._state = state
        for name in ("enclave/run", "host"):
            (state / name).mkdir(parents=True, mode=0o700)
        self.list_keys()

    def list_keys(self, *pkhs: str) -> None:
        text = CONFIG
        for documented, ours in PORTS.items():
            text = text.replace(documented, ours)
        policies = "{" + ", ".join(f"{pkh}: {BAKER}" for pkh in pkhs) + "}"
        (self._state / "host" / "signatory.yaml").write_text(text.replace("tezos: {}", f"tezos: {policies}"))
        for path in (self._state, *self._state.rglob("*")):
            os.chown(path, USER, USER)

    def run(self, *words: str) -> str:
        command = [*COMPOSE, "--project-name", "parts", "--file", str(ROOT / "compose.yaml"), *words]
        environment = {**os.environ, "STATE": str(self._state), "DOCKER_HOST": self._docker[-1]}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def up(self, *services: str) -> None:
        self.run("up", "-d", *services)

    def wait(self) -> None:
        """Return when the host is ready; its log says so, and ends when it does."""
        name = self.run("ps", "-q", "host").strip()
        log = subprocess.Popen([*self._docker, "logs", "-f", name], stderr=subprocess.PIPE, text=True)
        assert log.stderr is not None
        said = []
        for line in log.stderr:
            said.append(line)
            if '"HTTP server is listening' in line:
                log.kill()
                log.communicate()
                return
        raise AssertionError("".join(said))


COMPOSE = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    with running_docker(tmp_path) as docker:
        for target, (text, name) in IMAGES.items():
            subprocess.run([*docker, "load", "-i", built_image.image(target, text) / "image.tar"], check=True)
            subprocess.run([*docker, "tag", f"{target}-of-parts", name], check=True)
        containers = Composed(docker, tmp_path / "state")
        try:
            yield containers
        finally:
            containers.run("down", "--timeout", "20")


def sign(pkh: str, message: bytes) -> int:
    body = json.dumps(message.hex()).encode()
    return ask(int(PORTS["6732"]), "POST", f"/keys/{pkh}", body).status


def test_containers_made_again_sign_nothing_twice(composed: Composed) -> None:
    composed.up("enclave")
    composed.run(
        "run", "--rm", "host", "generate", "-c", "/state/signatory.yaml", "--vault", "enclave", "--type", "tz4"
    )
    listed = composed.run("run", "--rm", "host", "list", "-c", "/state/signatory.yaml", "--json")
    (pkh,) = (json.loads(line)["pkh"] for line in listed.splitlines())
    composed.list_keys(pkh)
    for _ in range(2):
        composed.up()
        composed.wait()
        assert sign(pkh, attestation(7)) == 200
        assert sign(pkh, attestation(7, payload=OTHER)) == 409
        composed.run("down", "--timeout", "20")
    composed.up()
    composed.wait()
    assert sign(pkh, attestation(6)) == 409
    assert sign(pkh, attestation(8)) == 200
    assert ask(int(PORTS["9583"]), "GET", "/healthz").status == 200
