"""Sealing by the transit engine of Vault or OpenBao: the key stays on the server, which audits each use of it.

- The image's own configuration (`vault_config`) lists the allowed keys; others are refused before any request.
- The header of a blob is its associated data. `rewrap` does not support associated data, so it is never used.
- The description of a key is checked before it seals: an encryption could create a missing key, of any type.
- Other modules have the meaning of answers (`vault_answers`), HTTP (`vault_client`) and tokens (`vault_login`).
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

from enclave_signer.errors import BlobCorrupt, SealingRefused, SealingUnavailable, blob_error
from enclave_signer.launcher import LauncherSocket
from enclave_signer.protocol import codec
from enclave_signer.protocol.blob import BlobHeader, parse_blob
from enclave_signer.protocol.errors import BadBlob, BadMessage
from enclave_signer.protocol.messages import MAX_BLOB_BYTES, Credentials, PrivateKey, PublicKey
from enclave_signer.sealing.base import Sealer, UnsealedKey
from enclave_signer.sealing.vault_answers import (
    Method,
    PermissionDenied,
    check_ciphertext,
    check_key,
    plaintext,
    read_batch,
)
from enclave_signer.sealing.vault_batches import Batches, Item, Outcome
from enclave_signer.sealing.vault_client import VaultClient, VaultRequest
from enclave_signer.sealing.vault_config import KEY_FORM, VAULT_TRANSIT, TransitKey, VaultConfig, transit_key
from enclave_signer.sealing.vault_login import Login, VaultToken


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultTimes:
    """Seconds for each step, and for all steps of one call of a session."""

    #: For all attempts of one request.
    call_s: float = 8.0
    #: Pauses before a request without an answer is repeated.
    retry_after_s: tuple[float, ...] = (0.1, 0.4)
    #: Until the next attempt to log in after a refusal.
    refused_s: float = 30.0
    #: Until the next attempt to log in after no answer, as many sessions may want one.
    unavailable_s: float = 0.5
    #: Less than a session has for `Initialize`, and than a host waits.
    limit_s: float = 25.0


DEFAULT_TIMES = VaultTimes()


class VaultTransit:
    """The provider of sealers that use the transit engine.

    Args:
        config: From the image.
        launcher: Makes this image's tokens.
        times: Limits for each step.

    Raises:
        ConfigError: The file of the certificate authority cannot be used.
    """

    name = VAULT_TRANSIT
    takes_legacy = False

    def __init__(self, config: VaultConfig, launcher: LauncherSocket, times: VaultTimes = DEFAULT_TIMES) -> None:
        self.limit_s: float | None = times.limit_s
        self._config = config
        self._client = VaultClient(config, times.call_s, times.retry_after_s)
        self._login = Login(
            config.login, self._client, launcher, refused_s=times.refused_s, unavailable_s=times.unavailable_s
        )
        self._transit = _Transit(self._client, self._login)

    async def open_sealer(self, credentials: Credentials) -> Sealer:
        """Return a sealer of the key that a session asks for, after a login.

        Raises:
            SealingRefused: The image does not allow it, or the server refuses.
            SealingUnavailable: No answer, retry later.
        """
        key = _key(self._config.allow_list.key(credentials.encryption_key_path))
        await self._login.token()
        return _VaultSealer(self._config, self._transit, key)

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await self._client.aclose()


class _VaultSealer:
    """Seals under one key, opens under those that the image allows."""

    #: Each call logs in if necessary, and reports a refusal of its own.
    shared_s = math.inf

    def __init__(self, config: VaultConfig, transit: "_Transit", key: TransitKey) -> None:
        self._config = config
        self._transit = transit
        self._key = key

    async def seal(self, private_key: PrivateKey, public_key: PublicKey) -> bytes:
        """Return a blob; see `Sealer`."""
        self._config.allow_list.check_sealing(self._key.name)
        header = BlobHeader(VAULT_TRANSIT, self._key.name, public_key).encode()
        await self._transit.check_key(self._key)
        ciphertext = (await self._transit.encrypt(self._key, codec.encode_private_key(private_key), header)).encode()
        try:
            check_ciphertext(ciphertext)
        except BlobCorrupt as error:
            raise SealingUnavailable("the server answered no ciphertext") from error
        if len(header) + len(ciphertext) > MAX_BLOB_BYTES:
            raise SealingRefused(f"the server made a blob of more than {MAX_BLOB_BYTES} bytes")
        return header + ciphertext

    async def unseal(self, blob: bytes) -> UnsealedKey:
        """Return the key in a blob; see `Sealer`."""
        try:
            header, authenticated, ciphertext = parse_blob(blob)
        except BadBlob as error:
            raise blob_error(error) from None
        if header.sealer != VAULT_TRANSIT:
            raise SealingRefused(f"blob sealed by {header.sealer[:40]!r}, this is {VAULT_TRANSIT}")
        self._config.allow_list.check_opening(header.kek)
        answered = await self._transit.decrypt(_key(header.kek), check_ciphertext(ciphertext), authenticated)
        try:
            return UnsealedKey(codec.decode_private_key(plaintext(answered)), header.public_key)
        except BadMessage:
            raise BlobCorrupt("blob corrupt: it holds no private key") from None


class _Transit:
    """Calls of the transit engine; each is repeated once with a new token if the server does not accept the first."""

    def __init__(self, client: VaultClient, login: Login) -> None:
        self._client = client
        self._login = login
        #: Those with a caller that waits.
        self._batches: WeakValueDictionary[tuple[Method, str], Batches] = WeakValueDictionary()

    async def encrypt(self, key: TransitKey, secret: bytes, header: bytes) -> str:
        item = {"plaintext": _base64(secret), "associated_data": _base64(header)}
        return await self._batch(Method.ENCRYPT, key).ask(item)

    async def decrypt(self, key: TransitKey, ciphertext: str, header: bytes) -> str:
        """Return the plaintext in base64."""
        item = {"ciphertext": ciphertext, "associated_data": _base64(header)}
        return await self._batch(Method.DECRYPT, key).ask(item)

    async def check_key(self, key: TransitKey) -> None:
        async def check(token: VaultToken) -> None:
            check_key(await self._client.ask(VaultRequest(f"{key.mount}/keys/{key.key}", token=token.text)), key)

        token = await self._login.token()
        try:
            await check(token)
        except PermissionDenied:
            await check(await self._other(token))

    def _batch(self, method: Method, key: TransitKey) -> Batches:
        batch = self._batches.get((method, key.name))
        if batch is None:
            batch = self._batches[method, key.name] = Batches(partial(self._send, method, key))
        return batch

    async def _send(self, method: Method, key: TransitKey, items: Sequence[Item]) -> Sequence[Outcome]:
        token = await self._login.token()
        try:
            return await self._results(method, key, items, token)
        except PermissionDenied:
            return await self._results(method, key, items, await self._other(token))

    async def _results(
        self, method: Method, key: TransitKey, items: Sequence[Item], token: VaultToken
    ) -> Sequence[Outcome]:
        secrets = tuple(item["plaintext"] for item in items if "plaintext" in item)
        path = f"{key.mount}/{method}/{key.key}"
        request = VaultRequest(path, {"batch_input": items}, token.text, secrets)
        return read_batch(await self._client.ask(request), method, key, len(items))

    async def _other(self, token: VaultToken) -> VaultToken:
        self._login.forget(token)
        return await self._login.token()


def _key(name: str) -> TransitKey:
    # A prefix in the allow-list may also match names of no key.
    key = transit_key(name)
    if key is None:
        raise SealingRefused(f"{name[:200]!r} is no key of {VAULT_TRANSIT}, which has the form {KEY_FORM}")
    return key


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
