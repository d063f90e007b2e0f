"""Login to Vault or OpenBao: gets a token of the server before a call that needs it.

- A token is never renewed: many tokens may not renew themselves, and a new login proves the image again.
- One login at a time. A failure is repeated for a while before the server is asked again.
- The secret or signed token for the login is read from its file, or made by the launcher, each time. It is never logged
  or shown, and sent only to the server.
"""

import math
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import trio

from enclave_signer.errors import (
    LauncherRefused,
    LauncherUnavailable,
    SealingError,
    SealingRefused,
    SealingUnavailable,
    again,
)
from enclave_signer.launcher import LauncherSocket, TokenRequest, is_token
from enclave_signer.protocol.messages import MAX_TOKEN_CHARS
from enclave_signer.sealing.vault_answers import VaultAnswer, unavailable
from enclave_signer.sealing.vault_client import VaultClient, VaultRequest
from enclave_signer.sealing.vault_config import AppRoleLogin, JwtLogin, TokenFile

#: Characters of a token of the server; batch tokens have a few hundred.
MAX_VAULT_TOKEN_CHARS = 8192
#: Seconds for which a token is used at most, so that a role's new policies count soon.
LONGEST_USED_S = 600.0
#: The part of its time for which a token is used: a call must end before it does.
USED_PART = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class VaultToken:
    """A token of the server.

    Attributes:
        text: The token.
        until: The end of its use, by trio's clock.
    """

    text: str = field(repr=False)
    until: float


class Login:
    """Tokens of the server.

    Args:
        config: The kind of login.
        client: The server.
        launcher: Makes this image's tokens.
        refused_s: Seconds until the server is asked again after a refusal.
        unavailable_s: The same, after it gave no answer.
    """

    def __init__(
        self,
        config: TokenFile | AppRoleLogin | JwtLogin,
        client: VaultClient,
        launcher: LauncherSocket,
        *,
        refused_s: float,
        unavailable_s: float,
    ) -> None:
        self._config = config
        self._client = client
        self._launcher = launcher
        self._refused_s = refused_s
        self._unavailable_s = unavailable_s
        self._one_at_a_time = trio.Lock()
        self._held: VaultToken | None = None
        self._failed: SealingError | None = None
        self._retry_at = -math.inf

    async def token(self) -> VaultToken:
        """Return a valid token for the next call.

        Raises:
            SealingRefused: The server or the launcher says no; the text says what to do.
            SealingUnavailable: One of them gives no answer, retry later.
        """
        if isinstance(self._config, TokenFile):
            return VaultToken(_vault_token(read_secret(self._config.file), str(self._config.file)), math.inf)
        async with self._one_at_a_time:
            if self._held is not None and trio.current_time() < self._held.until:
                return self._held
            if self._failed is not None and trio.current_time() < self._retry_at:
                raise again(self._failed)
            self._held = None
            try:
                self._held = await self._logged_in(self._config)
            except SealingError as error:
                wait_s = self._unavailable_s if isinstance(error, SealingUnavailable) else self._refused_s
                self._failed, self._retry_at = error, trio.current_time() + wait_s
                raise
            return self._held

    def forget(self, token: VaultToken) -> None:
        """Do not return this token again: the server does not accept it."""
        if self._held is token:
            self._held = None

    async def _logged_in(self, config: AppRoleLogin | JwtLogin) -> VaultToken:
        began = trio.current_time()
        if isinstance(config, AppRoleLogin):
            secret = read_secret(config.secret_id_file)
            body = {"role_id": config.role_id, "secret_id": secret}
        else:
            secret = await self._jwt(config)
            body = {"jwt": secret} | ({} if config.role is None else {"role": config.role})
        answer = await self._client.ask(VaultRequest(f"{config.path}/login", body, secrets=(secret,)))
        text, life_s = _read_login(answer, config.path)
        # The shorter one first: no float holds every number that a server may write.
        return VaultToken(text, began + USED_PART * min(life_s, LONGEST_USED_S / USED_PART))

    async def _jwt(self, config: JwtLogin) -> str:
        if config.file is not None:
            text = read_secret(config.file)
            if not is_token(text.encode()):
                raise SealingUnavailable(f"{config.file} holds no token")
            return text
        try:
            return (await self._launcher.token(TokenRequest(config.audience or ""))).decode()
        except LauncherRefused as error:
            raise SealingRefused(str(error)) from error
        except LauncherUnavailable as error:
            raise SealingUnavailable(str(error)) from error


def read_secret(path: Path) -> str:
    """Return the text of a file without the white space around it.

    Raises:
        SealingUnavailable: It cannot be read, or is empty; another program may be about to write it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Reading a pipe would block.
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = os.read(descriptor, MAX_TOKEN_CHARS + 1).strip() if regular else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SealingUnavailable(f"{path}: {error.strerror}") from None
    if not data or len(data) > MAX_TOKEN_CHARS or not data.isascii():
        raise SealingUnavailable(f"{path} is empty, or holds no secret that logs in")
    return data.decode()


def _read_login(answer: VaultAnswer, path: str) -> tuple[str, float]:
    """Return a new token and the seconds for which it is valid."""
    auth = answer.fields.get("auth")
    if answer.status == 200 and isinstance(auth, dict):
        life = auth.get("lease_duration")
        if type(life) is not int or life < 0:
            raise SealingUnavailable(f"the login at {path} was answered without the time for which its token is good")
        # Zero says that it does not end.
        return _vault_token(auth.get("client_token"), f"the answer to the login at {path}"), life or math.inf
    raise unavailable(answer) or SealingRefused(
        f"the server refuses the login at {path}: compare its role with what this image shows {answer.summary}"
    )


def _vault_token(text: object, where: str) -> str:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_VAULT_TOKEN_CHARS or not text.isascii():
        raise SealingUnavailable(f"{where} holds no token of the server")
    if not text.isprintable() or " " in text:
        raise SealingUnavailable(f"{where} holds no token of the server")
    return text
