"""The launcher's socket: where a workload of Confidential Space has attestation tokens made.

Source: go-tpm-tools, `launcher/teeserver`.
"""

import errno
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from enclave_signer.errors import LauncherRefused, LauncherUnavailable
from enclave_signer.http_request import HttpRequest, NoHttpAnswer, ask
from enclave_signer.protocol.messages import MAX_TOKEN_CHARS

#: Where it is in every Confidential Space image.
LAUNCHER_SOCKET = Path("/run/container_launcher/teeserver.sock")
_JWT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TOKEN_IN_TEXT = re.compile(r"(eyJ|ya29\.)[\w.~+/-]*")
_SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token that is made to order.

    Attributes:
        audience: Whom it is made out to.
        kind: `OIDC` or `PKI`: the launcher passes an unknown one on as unspecified.
        nonces: Its `eat_nonce`; at most 6, of 10 to 74 characters each.
    """

    audience: str
    kind: str = "OIDC"
    nonces: Sequence[str] = ()

    def body(self) -> bytes:
        """Return it as the launcher reads it, which refuses fields that it does not know."""
        wanted: dict[str, object] = {"audience": self.audience, "token_type": self.kind}
        if self.nonces:
            wanted["nonces"] = [*self.nonces]
        return json.dumps(wanted).encode()


class LauncherSocket:
    """The socket.

    Args:
        path: Where it is.
        limit_s: Seconds for an answer; a token takes about one.
    """

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path = path
        self._limit_s = limit_s

    async def token(self, wanted: TokenRequest | None) -> bytes:
        """Return a token that the launcher makes now, not looked into; None asks for the default one, for Google's STS.

        Raises:
            LauncherRefused: It gives this image none.
            LauncherUnavailable: It gives none at the moment.
        """
        if wanted is None:
            request = HttpRequest("GET", "localhost", "/v1/token")
        else:
            request = HttpRequest("POST", "localhost", "/v1/token", "application/json", wanted.body())
        try:
            answer = await ask(self._open, request, self._limit_s)
        except NoHttpAnswer as error:
            raise LauncherUnavailable(f"the launcher gave no token at {self._path}: {error}") from error
        if answer.status == 200:
            return whole_token(answer.body)
        text = shown(answer.body.decode("utf-8", "replace"))
        # Quota and outages are 500, seen in the launcher's source; 400 is final.
        if answer.status == 400:
            raise LauncherRefused(f"the launcher gives this image no token: {text}")
        raise LauncherUnavailable(f"the launcher gave no token, HTTP status {answer.status}: {text}")

    async def _open(self) -> trio.abc.Stream:
        try:
            return await trio.open_unix_socket(str(self._path))
        except OSError as error:
            if error.errno != errno.EACCES:
                raise
            raise LauncherRefused(
                f"the launcher's socket {self._path} is closed to the user that this image runs as: the Confidential Space "
                "image is too old for a workload that is not root: use a newer one"
            ) from error


def is_token(data: bytes) -> bool:
    """Whether this is a token by its form."""
    return len(data) <= MAX_TOKEN_CHARS and _JWT.fullmatch(data) is not None


def whole_token(data: bytes) -> bytes:
    """Return a token without the white space around it.

    Raises:
        LauncherUnavailable: There is none.
    """
    token = data.strip()
    if not is_token(token):
        raise LauncherUnavailable("the launcher's answer holds no token")
    return token


def shown(text: str) -> str:
    """Return what a service said of a refusal, for people: on one line, short, and without a token."""
    line = _TOKEN_IN_TEXT.sub("(token)", text)
    return "".join(char if char.isprintable() else " " for char in line)[:_SHOWN_CHARS].strip()
