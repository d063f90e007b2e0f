"""A vault: one enclave, the blobs that belong to it, and the keys that are open there.

- A key is announced only after its blob is durable.
- What the enclave says is checked: the public key of every blob against the stored hash, the public key of an import
  against the secret, every signature and proof against the key, before anyone gets it.
- A blob that does not open, or opens as another key, takes its own key out of service, never the vault.

The vault is usable as a library; `docs/library.md` has an example.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from enclave_signer.curves import CurveError, VerifyingKey, curve
from enclave_signer.protocol.codec import MAX_MESSAGE_BYTES
from enclave_signer.protocol.messages import (
    Credentials,
    KeyType,
    PrivateKey,
    PublicKey,
    Signature,
    SigningVersion,
)
from enclave_signer.tezos import public_key_hash
from host_backend.enclave.client import EnclaveClient, open_client
from host_backend.errors import EnclaveRefused, KeyNotFound, MalformedRequest
from host_backend.keystore.base import KeyStore, StoredKey
from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Imports in flight while keys are restored: enough to hide a cloud's latency, few enough that none waits too long.
RESTORE_IN_FLIGHT = 64


@dataclass(frozen=True, slots=True)
class VaultKey:
    """A key that can sign: its hash, its public key, and its handle on the vault's connection."""

    pkh: str
    public_key: PublicKey
    verifying_key: VerifyingKey
    handle: int


class Vault:
    """The keys of one enclave. Use `open_vault`."""

    def __init__(self, name: str, client: EnclaveClient, store: KeyStore) -> None:
        self.name = name
        self._client = client
        self._store = store
        self._keys: dict[str, VaultKey] = {}
        self._quarantined: dict[str, str] = {}

    @property
    def keys(self) -> tuple[VaultKey, ...]:
        """The keys that can sign, in stored order."""
        return tuple(self._keys.values())

    @property
    def quarantined(self) -> dict[str, str]:
        """Hashes of stored keys that cannot sign, and why."""
        return dict(self._quarantined)

    @property
    def problem(self) -> str | None:
        """Why the vault cannot sign at all; None when it can."""
        broken = self._client.broken
        return None if broken is None else str(broken)

    def find(self, pkh: str) -> VaultKey | None:
        """Return a key that this vault holds.

        Raises:
            EnclaveRefused: The vault holds it, and it is out of service.
        """
        key = self._keys.get(pkh)
        if key is None and pkh in self._quarantined:
            raise EnclaveRefused(f"{pkh} is out of service: {self._quarantined[pkh]}")
        return key

    def key(self, pkh: str) -> VaultKey:
        """Return a key.

        Raises:
            KeyNotFound: Not in this vault.
            EnclaveRefused: Out of service.
        """
        key = self.find(pkh)
        if key is None:
            raise KeyNotFound(f"{pkh} is not in vault {self.name}")
        return key

    def check_ready(self, key: VaultKey, version: SigningVersion) -> None:
        """Pass when a signature can be asked for.

        Raises:
            MalformedRequest: The key's curve has no such version; no enclave shall hear of it.
            EnclaveUnavailable: The enclave cannot be reached.
        """
        if key.public_key.key_type is KeyType.BLS and version is SigningVersion.V0:
            raise MalformedRequest("version 0 cannot be signed by a tz4 key: use version 1 or 2")
        if (broken := self._client.broken) is not None:
            raise broken

    async def restore(self) -> None:
        """Open every stored blob; those that fail are quarantined.

        Raises:
            ConfigError, StoreUnavailable: The store cannot be read.
            EnclaveUnavailable: The connection ended.
        """
        limit = asyncio.Semaphore(RESTORE_IN_FLIGHT)

        async def restore_one(stored: StoredKey) -> VaultKey | str:
            async with limit:
                try:
                    imported = await self._client.import_blob(stored.blob)
                    return _checked(imported.public_key, imported.handle, stored.pkh)
                except EnclaveRefused as error:
                    if self._client.broken is not None:
                        # The link failed, not this key.
                        raise
                    return str(error)

        stored_keys = await self._store.load()
        outcomes = await asyncio.gather(*map(restore_one, stored_keys))
        for stored, outcome in zip(stored_keys, outcomes, strict=True):
            self._restored(stored.pkh, outcome)

    def _restored(self, pkh: str, outcome: VaultKey | str) -> None:
        # A file may hold a key twice, as Signatory's import does: one good blob is enough.
        if pkh in self._keys:
            return
        if isinstance(outcome, VaultKey):
            self._quarantined.pop(pkh, None)
            self._keys[pkh] = outcome
        else:
            self._quarantined[pkh] = outcome
            logger.error("key out of service: %s", outcome, extra=fields(pkh=pkh, vault=self.name))

    async def generate(self, key_type: KeyType) -> VaultKey:
        """Make a key inside the enclave and store its blob.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The enclave did not make it.
            ConfigError, StoreUnavailable: Its blob could not be stored: there is no such key.
        """
        sealed = await self._client.generate(key_type)
        key = _checked(sealed.public_key, sealed.handle or 0, public_key_hash(sealed.public_key))
        if sealed.public_key.key_type is not key_type:
            raise EnclaveRefused(f"the enclave made a key of type {sealed.public_key.key_type}, not {key_type}")
        return await self._keep(key, sealed.blob)

    async def import_key(self, private_key: PrivateKey) -> VaultKey:
        """Have a key sealed by the enclave and store its blob; a key already stored stays as it is.

        Raises:
            MalformedRequest: The secret is no private key of its curve.
            EnclaveRefused, EnclaveUnavailable: The enclave did not take it.
            ConfigError, StoreUnavailable: Its blob could not be stored.
        """
        try:
            expected = curve(private_key.key_type).open(private_key).public_key
        except CurveError as error:
            raise MalformedRequest(f"not a private key: {error}") from None
        sealed = await self._client.import_unencrypted(private_key)
        if sealed.public_key != expected:
            raise EnclaveRefused("the enclave sealed another key than it was given: nothing was stored")
        key = _checked(sealed.public_key, sealed.handle or 0, public_key_hash(expected))
        return await self._keep(key, sealed.blob)

    async def _keep(self, key: VaultKey, blob: bytes) -> VaultKey:
        if not await self._store.add(StoredKey(key.pkh, blob)):
            if key.pkh in self._quarantined:
                raise EnclaveRefused(
                    f"{key.pkh} is stored already, and out of service: {self._quarantined[key.pkh]}: "
                    "move its entry out of the key file, then import it again"
                )
            logger.info("already stored: kept as it was", extra=fields(pkh=key.pkh, vault=self.name))
        self._keys[key.pkh] = key
        return key

    async def sign(self, pkh: str, message: bytes, version: SigningVersion = SigningVersion.LATEST) -> Signature:
        """Return a verified signature. No policy, no watermark: those are the signer's.

        Raises:
            KeyNotFound, MalformedRequest: Such a key cannot sign this.
            EnclaveRefused, EnclaveUnavailable: The enclave did not sign, or signed wrongly.
        """
        key = self.key(pkh)
        self.check_ready(key, version)
        return await self.sign_with(key, message, version)

    async def sign_with(self, key: VaultKey, message: bytes, version: SigningVersion) -> Signature:
        """Return a verified signature of a key that is at hand; see `sign`."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise MalformedRequest(f"message of {len(message)} bytes, the limit is {MAX_MESSAGE_BYTES}")
        signature = await self._client.sign(key.handle, message, version)
        await self._verify(key, lambda: key.verifying_key.verify(signature, message, version))
        return signature

    async def prove_possession(self, pkh: str) -> Signature:
        """Return a verified proof of possession of a tz4 key.

        Raises:
            KeyNotFound, MalformedRequest: No such key, or none that can prove it.
            EnclaveRefused, EnclaveUnavailable: The enclave did not prove it.
        """
        key = self.key(pkh)
        if key.public_key.key_type is not KeyType.BLS:
            raise MalformedRequest("proof of possession is not supported: only tz4 keys have it")
        self.check_ready(key, SigningVersion.LATEST)
        proof = await self._client.prove_possession(key.handle)
        await self._verify(key, lambda: key.verifying_key.verify_possession(proof))
        return proof

    async def _verify(self, key: VaultKey, verify: Callable[[], None]) -> None:
        try:
            if curve(key.public_key.key_type).slow:
                await asyncio.to_thread(verify)
            else:
                verify()
        except CurveError as error:
            # Whatever else this connection says cannot be trusted either.
            self._client.close()
            raise EnclaveRefused(f"the enclave's signature does not verify for {key.pkh}: {error}") from error

    def close(self) -> None:
        """End the connection to the enclave."""
        self._client.close()


def _checked(public_key: PublicKey, handle: int, pkh: str) -> VaultKey:
    actual = public_key_hash(public_key)
    if actual != pkh:
        raise EnclaveRefused(f"its blob holds another key, {actual}")
    try:
        verifying_key = curve(public_key.key_type).parse_public_key(public_key.data)
    except CurveError as error:
        raise EnclaveRefused(f"the enclave's public key is none: {error}") from None
    return VaultKey(pkh, public_key, verifying_key, handle)


def find_key(vaults: Iterable[Vault], pkh: str) -> tuple[Vault, VaultKey]:
    """Return the vault that holds a key, and the key.

    Raises:
        KeyNotFound: None holds it.
        EnclaveRefused: It is out of service.
    """
    out_of_service: EnclaveRefused | None = None
    for vault in vaults:
        try:
            key = vault.find(pkh)
        except EnclaveRefused as error:
            # Another vault may hold the same key, in order.
            out_of_service = error
            continue
        if key is not None:
            return vault, key
    raise out_of_service or KeyNotFound("this key not found in any vault")


@asynccontextmanager
async def open_vault(
    store: KeyStore, *, host: str, port: int, credentials: Credentials | None = None, name: str = "vault"
) -> AsyncIterator[Vault]:
    """Connect to an enclave, restore every stored key, and close the connection at the end.

    Args:
        store: Where the blobs are kept.
        host: The enclave's address.
        port: The enclave's port.
        credentials: What the enclave's sealer shall use; the `local` sealer needs none.
        name: How the vault is called in texts.

    Raises:
        EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or not with yes.
        ConfigError, StoreUnavailable: The store cannot be read.
    """
    client = await open_client(host, port, credentials or Credentials())
    vault = Vault(name, client, store)
    try:
        await vault.restore()
        yield vault
    finally:
        vault.close()
