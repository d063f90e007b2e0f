"""`compose.yaml`, as the document says: containers are removed and made again, and nothing is signed twice."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.markdown import DOCS, blocks
from tests.doubles.documented import run_block
from tests.doubles.host_process import BAKER, ask
from tests.doubles.known_keys import attestation
from tests.doubles.processes import ROOT
from tests.doubles.runtimes import running_docker

#: Seconds: an image takes half a minute on an idle machine.
pytestmark = pytest.mark.timeout(1200)

OTHER = bytes(range(32))
#: Where the documented configuration listens, and the test does: those may be taken.
PORTS = {"6732": "26732", "9583": "29583"}
COMPOSE = "docker-compose" if shutil.which("docker-compose") else "docker compose"


class Composed:
    """The two containers, their state in a folder."""

    def __init__(self, docker: list[str], state: Path) -> None:
        self._docker = docker
        self._config = state / "host" / "signatory.yaml"
        self._environment = {
            **os.environ,
            "DOCKER_HOST": docker[-1],
            "STATE": str(state),
            "COMPOSE_PROJECT_NAME": "parts",
        }

    def follow_document(self) -> str:
        """Build, load and start as the document says, on the test's ports; return what was printed."""
        ports = "".join(f"sed -i s/{theirs}/{ours}/ $STATE/host/signatory.yaml\n" for theirs, ours in PORTS.items())
        first = "docker compose up -d enclave\n"
        replaced = {
            "export STATE=$PWD/.state/compose\n": "",
            first: ports + first,
            "docker compose ": f"{COMPOSE} ",
        }
        return run_block(blocks(DOCS / "confidential-space.md", "shell")[1], self._environment, replaced)

    def run(self, *words: str) -> str:
        command = [*COMPOSE.split(), "--file", str(ROOT / "compose.yaml"), *words]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def list_key(self, pkh: str) -> None:
        self._config.write_text(self._config.read_text().replace("tezos: {}", f"tezos: {{{pkh}: {BAKER}}}"))

    def up(self) -> None:
        """Make both containers, and return when the host says that it is ready."""
        self.run("up", "-d")
        container = self.run("ps", "-q", "host").strip()
        log = subprocess.Popen([*self._docker, "logs", "--follow", container], stderr=subprocess.PIPE, text=True)
        assert log.stderr is not None
        ready = any('"HTTP server is listening' in line for line in log.stderr)
        log.kill()
        log.communicate()
        assert ready

    def down(self) -> None:
        """Stop and remove both containers."""
        self.run("down", "--timeout", "20")


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    with running_docker(tmp_path) as docker:
        containers = Composed(docker, tmp_path / "state")
        try:
            yield containers
        finally:
            containers.down()


def sign(pkh: str, message: bytes) -> int:
    body = json.dumps(message.hex()).encode()
    return ask(int(PORTS["6732"]), "POST", f"/keys/{pkh}", body).status


def test_containers_made_again_sign_nothing_twice(composed: Composed) -> None:
    printed = composed.follow_document()
    print(f"\n{printed}")
    (pkh,) = re.findall(r"\btz4\w+", printed)
    composed.list_key(pkh)
    for _ in range(2):
        composed.down()
        composed.up()
        # Prometheus is there only where its profile is asked for.
        assert len(composed.run("ps", "-q").split()) == 2
        assert sign(pkh, attestation(7)) == 200
        assert sign(pkh, attestation(7, payload=OTHER)) == 409
    assert sign(pkh, attestation(6)) == 409
    assert sign(pkh, attestation(8)) == 200
    assert ask(int(PORTS["9583"]), "GET", "/healthz").status == 200
