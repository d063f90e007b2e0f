"""The launcher's tokens: what a Confidential Space image shows to say which image it is.

- The launcher keeps a token in a file, which it renews by renaming; the file is opened by its path each time. When it
  cannot renew it, an old one stays there: then its socket is asked.
- The reader of a token decides whether it has expired: this machine's clock may be wrong.
- A token lets its holder act as this image for an hour: none is logged, shown or given to anyone but Google's STS.

Source: go-tpm-tools, `launcher/launcherfile` and `launcher/teeserver`.
"""

import base64
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from enclave_signer.errors import LauncherRefused, LauncherUnavailable, SealingRefused, SealingUnavailable
from enclave_signer.launcher import LauncherSocket, TokenRequest, is_token
from enclave_signer.protocol.messages import MAX_TOKEN_CHARS


@dataclass(frozen=True, slots=True)
class LauncherToken:
    """A token, and what it claims; nothing here has verified it.

    Attributes:
        text: The token.
        image_digest: `sha256:…` of this image.
        expires_at: Seconds since 1970; 0 when it does not say.
        fresh: That the launcher made it just now.
    """

    text: str = field(repr=False)
    image_digest: str | None
    expires_at: float
    fresh: bool


class Launcher:
    """Where tokens come from.

    Args:
        token_file: The launcher's file.
        socket: Its Unix socket.
        audience: Whom the tokens are made out to; None for that of the file.
        limit_s: Seconds for the socket's answer.
    """

    def __init__(self, token_file: Path, socket: Path, audience: str | None, limit_s: float) -> None:
        self._token_file = token_file
        self._socket = LauncherSocket(socket, limit_s)
        self._audience = audience

    async def token(self) -> LauncherToken:
        """Return the token in the file, or a new one if it has expired by this machine's clock.

        Raises:
            SealingRefused: The launcher gives this image none.
            SealingUnavailable: There is none at the moment.
        """
        if self._audience is not None:
            return await self.new_token()
        try:
            kept = self._kept()
        except SealingUnavailable as missing:
            try:
                return await self.new_token()
            except SealingUnavailable as error:
                raise SealingUnavailable(f"{missing}; {error}") from error
        if kept.expires_at > time.time():
            return kept
        try:
            return await self.new_token()
        except SealingUnavailable:
            # The clock may be ahead: the reader of the token decides.
            return kept

    async def new_token(self) -> LauncherToken:
        """Return a token that the launcher makes now.

        Raises:
            SealingRefused: The launcher gives this image none.
            SealingUnavailable: It gives none at the moment.
        """
        try:
            data = await self._socket.token(None if self._audience is None else TokenRequest(self._audience))
        except LauncherRefused as error:
            raise SealingRefused(str(error)) from error
        except LauncherUnavailable as error:
            raise SealingUnavailable(str(error)) from error
        token = read_token(data, fresh=True)
        if token is None:
            raise SealingUnavailable("the launcher's answer holds no token")
        return token

    def _kept(self) -> LauncherToken:
        try:
            with self._token_file.open("rb") as file:
                data = file.read(MAX_TOKEN_CHARS + 1)
        except OSError as error:
            raise SealingUnavailable(f"the launcher's token file {self._token_file}: {error.strerror}") from error
        if not data.strip():
            raise SealingUnavailable(f"the launcher's token file {self._token_file} is empty")
        token = read_token(data, fresh=False)
        if token is None:
            raise SealingUnavailable(f"the launcher's token file {self._token_file} holds no token")
        return token


def read_token(data: bytes, *, fresh: bool) -> LauncherToken | None:
    """Return a token with what it claims, or None where there is no token."""
    data = data.strip()
    if not is_token(data):
        return None
    payload = data.split(b".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        expires_at = float(claims["exp"]) if type(claims["exp"]) in {int, float} else 0.0
        digest = claims.get("submods", {}).get("container", {}).get("image_digest")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    known = isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    return LauncherToken(
        text=data.decode(),
        image_digest=digest if known else None,
        expires_at=expires_at,
        fresh=fresh,
    )
