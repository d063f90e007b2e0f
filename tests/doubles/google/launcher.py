"""The launcher of Confidential Space: its token file, its socket, and the key that signs its tokens."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.doubles.google.http_service import Answered, Asked, http_service

ISSUER = "https://confidentialcomputing.googleapis.com"
STS_AUDIENCE = "https://sts.googleapis.com"
DIGEST = "sha256:" + "4b" * 32
OTHER_DIGEST = "sha256:" + "00" * 32


@lru_cache
def signing_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def token(
    *, digest: str = DIGEST, audience: str = STS_AUDIENCE, life_s: float = 3600, debug: bool = False, **more: object
) -> str:
    """Return a token that was made 60 s before its time began to count; a negative life has ended."""
    now = time.time()
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": audience,
        "sub": "https://www.googleapis.com/compute/v1/projects/tz/zones/europe-west4-a/instances/signer",
        "iat": int(now + min(life_s, 0)) - 60,
        "nbf": int(now + min(life_s, 0)) - 60,
        "exp": int(now + life_s),
        "swname": "CONFIDENTIAL_SPACE",
        "hwmodel": "GCP_AMD_SEV",
        "dbgstat": "enabled" if debug else "disabled-since-boot",
        "submods": {
            "container": {"image_digest": digest},
            "confidential_space": {} if debug else {"support_attributes": ["LATEST", "STABLE", "USABLE"]},
            "gce": {"project_id": "tz"},
        },
        **more,
    }
    return jwt.encode(claims, signing_key(), "RS256", headers={"kid": "1"})


class LauncherDouble:
    """A folder as `/run/container_launcher` is; `socket_answer` takes the place of a token that the socket makes."""

    def __init__(self, folder: Path) -> None:
        self.token_file = folder / "attestation_verifier_claims_token"
        self.socket = folder / "teeserver.sock"
        self.asked: list[Asked] = []
        self.socket_answer: Answered | None = Answered(200)
        #: What the tokens of the socket say.
        self.digest = DIGEST

    def write(self, text: str) -> None:
        """Put a token into the file, at once and whole."""
        new = self.token_file.with_name(".token.tmp")
        new.write_text(text)
        new.rename(self.token_file)

    def answer(self, asked: Asked) -> Answered | None:
        self.asked.append(asked)
        if self.socket_answer is None or self.socket_answer != Answered(200):
            return self.socket_answer
        audience = STS_AUDIENCE
        if asked.method == "POST":
            wanted = json.loads(asked.body)
            if set(wanted) != {"audience", "token_type"} or wanted["token_type"] != "OIDC":
                return Answered(400, b"unknown field", "text/html")
            audience = wanted["audience"]
        return Answered(200, token(digest=self.digest, audience=audience).encode(), "text/html")

    @contextmanager
    def serving(self) -> Iterator["LauncherDouble"]:
        """Answer at the socket meanwhile."""
        with http_service(self.answer, self.socket):
            yield self
