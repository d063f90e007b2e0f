"""An image, a launcher that vouches for it, the policy that asks for it, and hosts' certificates: all on loopback."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.doubles.client_certificates import ClientFiles, client_files
from tests.doubles.google.http_service import Answered, Asked, http_service
from tests.doubles.google.tokens import AUDIENCE, DIGEST, PROJECT, Chain, altered, claims
from tests.doubles.host_process import VAULT, write_config
from tests.doubles.processes import Enclave, kept

POLICY = f"audience: {AUDIENCE}\nimage_digests: [{DIGEST}]\nprojects: [{PROJECT}]\n"
OLDER = "sha256:" + "0d" * 32


class Clock:
    """The wall clock, and what a test adds to it."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class AttestedWorld:
    """Everything around an enclave that proves itself.

    Attributes:
        changes: Claims, by dotted paths, that tokens have instead.
        away: Whether Google gives no tokens.
        kept_token: Given instead of a new one.
        asked: What the launcher was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: By which tokens are made.
        self.clock = Clock()
        self.socket = folder / "teeserver.sock"
        self.client = client_files(folder)
        self.chain = Chain()
        self.changes: dict[str, object] = {}
        self.away = False
        self.kept_token: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.policy = folder / "policy.yaml"
        self.policy.write_text(POLICY)
        self.root = folder / "root.pem"
        self.root.write_bytes(self.chain.root_pem)
        self.image = folder / "image.toml"
        self.write_image(self.client)

    def write_image(self, *clients: ClientFiles, listen: str = "127.0.0.1:0") -> None:
        """Have the next enclave take these clients, and listen there."""
        self.image.write_text(
            f'development = true\nsealers = ["local"]\nlisteners = ["{listen}"]\n'
            f'[local]\nsealing_key = "{self.folder / "sealing.key"}"\n'
            f"[tls]\nclients = {json.dumps([each.digest for each in clients])}\n"
            f'[attestation]\nprovider = "confidential_space"\naudience = "{AUDIENCE}"\ntoken_type = "PKI"\n'
        )

    def answer(self, asked: Asked) -> Answered:
        """Be the launcher."""
        wanted = json.loads(asked.body)
        self.asked.append(wanted)
        if self.away:
            text = b"failed to retrieve custom attestation service token: rpc error: code = ResourceExhausted"
            return Answered(500, text, "text/html")
        values = altered(
            claims(self.clock()), {"aud": wanted["audience"], "eat_nonce": wanted["nonces"], **self.changes}
        )
        return Answered(200, (self.kept_token or self.chain.token(values)).encode(), "text/html")

    def answer_for(self, nonce: str) -> str:
        """Return a token as the launcher gives it for a nonce."""
        return self.chain.token(altered(claims(self.clock()), {"eat_nonce": [nonce]}))

    @contextmanager
    def enclave(self, port: int = 0) -> Iterator[Enclave]:
        """Run the daemon."""
        self.write_image(self.client, listen=f"127.0.0.1:{port}")
        command = [sys.executable, "-m", "tests.doubles.attested_enclave", "--image", str(self.image)]
        with kept(Enclave(command, {"LAUNCHER": str(self.socket)})) as enclave:
            yield enclave

    def host_config(self, port: int, tezos: dict[str, str] | None = None) -> Path:
        """Write the configuration of a host that asks the enclave for proof."""
        config = write_config(self.folder, port, tezos)
        more = (
            f"tls: {{certificate: '{self.client.certificate}', key: '{self.client.key}'}}, "
            f"attestation: {{policy: '{self.policy}', token_type: PKI, root: '{self.root}'}}"
        )
        text = config.read_text()
        assert text.count(f"port: {port}}}") == 1, VAULT
        config.write_text(text.replace(f"port: {port}}}", f"port: {port}, {more}}}"))
        return config


@contextmanager
def attested_world(folder: Path) -> Iterator[AttestedWorld]:
    """Serve the launcher's socket meanwhile."""
    world = AttestedWorld(folder)
    with http_service(world.answer, world.socket):
        yield world


def wait_for_calls(enclave: Enclave, *names: str) -> None:
    """Return when an enclave has got these calls, one right after the other; what it says may come late."""
    others = r"(?:(?!called: ).*\n)*"
    enclave.wait_for(others.join(f"called: {name}\n" for name in names))


def calls(enclave: Enclave) -> list[str]:
    """Return the names of the calls that an enclave got."""
    return [line.removeprefix("called: ") for line in enclave.log.splitlines() if line.startswith("called: ")]
