"""The launcher of Confidential Space: its token file, its socket, and what the service behind it answers.

Source: go-tpm-tools, `launcher/teeserver` and `verifier/models`; a real handler of January 2026 for the texts.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.doubles.google.http_service import Answered, Asked, http_service
from tests.doubles.google.tokens import ABSENT, DIGEST, Chain, Issuer, claims, rsa_key

ISSUER = "https://confidentialcomputing.googleapis.com"
STS_AUDIENCE = "https://sts.googleapis.com"
OTHER_DIGEST = "sha256:" + "00" * 32
#: Its fields, all that the decoder knows.
_OPTIONS = {"audience", "token_type", "nonces", "aws_principal_tag_options"}
#: What GCA refuses is final, what it fails at is not. Source: launcher/teeserver, since 2025-09.
_FINAL = {
    "InvalidArgument",
    "FailedPrecondition",
    "PermissionDenied",
    "Unauthenticated",
    "NotFound",
    "Aborted",
    "OutOfRange",
    "Canceled",
}
MAX_NONCES, NONCE_BYTES, MAX_AUDIENCE_BYTES = 6, range(10, 75), 512


def signing_key() -> rsa.RSAPrivateKey:
    return rsa_key(Issuer().kids[-1])


def token(
    *, digest: str = DIGEST, audience: str = STS_AUDIENCE, life_s: float = 3600, debug: bool = False, **more: object
) -> str:
    """Return a token that was made 60 s before its time began to count; a negative life has ended."""
    now = time.time()
    begun = int(now + min(life_s, 0)) - 60
    changes: dict[str, object] = {
        "aud": audience,
        "iat": begun,
        "nbf": begun,
        "exp": int(now + life_s),
        "eat_nonce": ABSENT,
        "dbgstat": "enabled" if debug else "disabled-since-boot",
        "submods__container__image_digest": digest,
        **({"submods__confidential_space__support_attributes": ABSENT} if debug else {}),
        **more,
    }
    return Issuer().token(claims(now, **changes))


class LauncherDouble:
    """A folder as `/run/container_launcher` is.

    Attributes:
        socket_answer: Takes the place of a token that the socket makes.
        digest: What the tokens of the socket say of the image.
        changes: What else they say, as `claims` takes it.
        issuer: Signs those of type OIDC.
        chain: Signs those of type PKI.
        failing: What the service says in place of a token: the name of a gRPC code.
        mode: Of the socket; 0o755 is that of images before July 2026.
    """

    def __init__(self, folder: Path) -> None:
        self.token_file = folder / "attestation_verifier_claims_token"
        self.socket = folder / "teeserver.sock"
        self.asked: list[Asked] = []
        self.socket_answer: Answered | None = Answered(200)
        self.digest = DIGEST
        self.changes: dict[str, object] = {}
        self.issuer = Issuer()
        self.chain: Chain | None = None
        self.failing: str | None = None
        self.mode = 0o777

    def write(self, text: str) -> None:
        """Put a token into the file, at once and whole."""
        new = self.token_file.with_name(".token.tmp")
        new.write_text(text)
        new.rename(self.token_file)

    def answer(self, asked: Asked) -> Answered | None:
        self.asked.append(asked)
        if self.socket_answer is None or self.socket_answer != Answered(200):
            return self.socket_answer
        if asked.path == "/v1/intel/token":
            return _said(500, "no ITA verifier is configured")
        if asked.path != "/v1/token":
            return _said(404, "404 page not found")
        if asked.method == "GET":
            return self._made({"audience": STS_AUDIENCE, "token_type": "OIDC"})
        if asked.method != "POST":
            return _said(400, "TEE server received an invalid HTTP method")
        try:
            # What comes after the object is not read.
            wanted, _ = json.JSONDecoder().raw_decode(asked.body.decode().lstrip())
        except ValueError:
            return _said(400, "failed to parse POST body as TokenOptions")
        if not isinstance(wanted, dict) or not set(wanted) <= _OPTIONS:
            return _said(400, "failed to parse POST body as TokenOptions: json: unknown field")
        if not wanted.get("audience"):
            return _said(400, "use GET request for the default identity token")
        if not wanted.get("token_type"):
            return _said(400, "token_type is a required parameter")
        return self._made(wanted)

    def _made(self, wanted: dict[str, Any]) -> Answered:
        nonces = wanted.get("nonces") or []
        sane = len(nonces) <= MAX_NONCES and all(len(each.encode()) in NONCE_BYTES for each in nonces)
        failing = self.failing
        if not sane or len(wanted["audience"].encode()) > MAX_AUDIENCE_BYTES:
            failing = "InvalidArgument"
        if failing is not None:
            text = "failed to retrieve custom attestation service token: rpc error"
            return _said(400 if failing in _FINAL else 500, f"{text}: code = {failing} desc = …")
        # One nonce is a text, several are a list, none is nothing.
        nonce = ABSENT if not nonces else nonces[0] if len(nonces) == 1 else nonces
        changed = {"aud": wanted["audience"], "eat_nonce": nonce, "submods__container__image_digest": self.digest}
        # The second type that it knows; whatever else is asked for is passed on as unspecified.
        signer = (self.chain or Chain()) if wanted["token_type"] == "PKI" else self.issuer
        return Answered(200, signer.token(claims(None, **{**changed, **self.changes})).encode(), "text/html")

    @contextmanager
    def serving(self) -> Iterator["LauncherDouble"]:
        """Answer at the socket meanwhile."""
        with http_service(self.answer, self.socket):
            self.socket.chmod(self.mode)
            yield self


def _said(status: int, text: str) -> Answered:
    return Answered(status, text.encode(), "text/html")
