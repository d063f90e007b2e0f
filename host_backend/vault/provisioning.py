"""Making keys, and taking them in: what asks the enclave's sealer for something new.

- A key is announced only after its blob is durable.
- The public key of an import is compared with the secret's own; the kind of a new key, with what was asked for.
- Keys that are made together are stored together, a batch at a time.
- Nothing here opens stored keys, or signs.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum

from enclave_signer.curves import CurveError, curve
from enclave_signer.protocol.messages import KeyType, PrivateKey
from enclave_signer.tezos import public_key_hash
from host_backend.arguments import require
from host_backend.enclave.client import EnclaveClient, GetConnection
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.side_connection import SideConnection
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits
from host_backend.errors import EnclaveRefused, MalformedRequest
from host_backend.keystore.base import KeyStore, StoredKey
from host_backend.vault.keys import VaultKey, opened_key

#: Keys that are asked for at once, and stored together: each batch rewrites the key file.
BATCH = 64


class Imported(StrEnum):
    """What became of a key that was to be imported."""

    NEW = "imported"
    STORED = "already stored"
    REPLACED = "replaced"


class Provisioning:
    """Makes and imports keys of one vault.

    Args:
        vault: Its name, for texts.
        store: Where the blobs are kept.
        connection: Gives a connection to the enclave that is not used for signatures.
        on_stored: Called with keys once they are durable.
    """

    def __init__(
        self,
        vault: str,
        store: KeyStore,
        connection: GetConnection,
        on_stored: Callable[[Sequence[StoredKey]], Awaitable[None]] | None = None,
    ) -> None:
        self.vault = vault
        self._store = store
        self._connection = connection
        self._on_stored = on_stored

    async def require_safe_import(self) -> None:
        """Pass when a private key in clear may be sent to the enclave.

        Raises:
            EnclaveRefused: It would cross a network to an enclave that was not proven.
            EnclaveUnavailable: The enclave cannot be reached.
        """
        async with self._connection() as client:
            client.require_may_carry_secrets()

    async def generate(self, key_type: KeyType) -> VaultKey:
        """Make a key inside the enclave and store its blob; see `generate_many`."""
        (key,) = [key async for key in self.generate_many(key_type, 1)]
        return key

    async def generate_many(self, key_type: KeyType, count: int) -> AsyncIterator[VaultKey]:
        """Make keys inside the enclave, store their blobs, and yield each once it is durable.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The enclave did not make one; those that were yielded are there.
            ConfigError, StoreUnavailable: Blobs could not be stored: there are no such keys.
        """
        require("key_type", key_type, KeyType, "name one of them, such as KeyType.BLS")
        for start in range(0, count, BATCH):
            async with self._connection() as client:
                making = (_make_one(client, key_type) for _ in range(min(BATCH, count - start)))
                outcomes = await asyncio.gather(*making, return_exceptions=True)
            made = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            if made:
                await self._add([StoredKey(key.pkh, blob) for key, blob in made])
            for key, _ in made:
                yield key
            if failure := next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None):
                raise failure

    async def _add(self, made: Sequence[StoredKey]) -> None:
        if len(await self._store.add(made)) != len(made):
            raise EnclaveRefused("the enclave made a key that is stored already: it does not make new keys")
        if self._on_stored is not None:
            await self._on_stored(made)

    async def import_key(self, private_key: PrivateKey, *, replace: bool = False) -> tuple[VaultKey, Imported]:
        """Have a key sealed by the enclave and store its blob; a key that is stored, and opens, stays as it is.

        Args:
            private_key: The secret.
            replace: Whether a stored blob that does not open may be replaced; the store keeps it aside.

        Raises:
            MalformedRequest: The secret is not a private key of its curve.
            EnclaveRefused, EnclaveUnavailable: The enclave did not take it; or it is stored, and does not open.
            ConfigError, StoreUnavailable: Its blob could not be stored.
        """
        require("private_key", private_key, PrivateKey, "parse_secret_key makes one of a text")
        try:
            expected = curve(private_key.key_type).open(private_key).public_key
        except CurveError as error:
            raise MalformedRequest(f"not a private key: {error}") from None
        pkh = public_key_hash(expected)
        stored = tuple(key.blob for key in await self._store.load() if key.pkh == pkh)
        key = opened_key(expected, pkh)
        async with self._connection() as client:
            if stored and (obstacle := await _why_closed(client, key, stored)) is None:
                return key, Imported.STORED
            if stored and not replace:
                raise EnclaveRefused(
                    f"{pkh} is stored already, and does not open: {obstacle}: "
                    "to have the stored blob replaced, import the key again with --replace"
                )
            with _explained(private_key.key_type):
                sealed = await client.import_unencrypted(private_key)
        if sealed.public_key != expected:
            raise EnclaveRefused("the enclave sealed another key than it was given: nothing was stored")
        return key, await self._keep(StoredKey(pkh, sealed.blob), stored)

    async def _keep(self, key: StoredKey, stored: tuple[bytes, ...]) -> Imported:
        if stored:
            await self._store.replace(key, expected=stored)
        elif key.pkh not in await self._store.add([key]):
            # Another process has stored it a moment ago.
            return Imported.STORED
        if self._on_stored is not None:
            await self._on_stored([key])
        return Imported.REPLACED if stored else Imported.NEW


@contextmanager
def _explained(key_type: KeyType) -> Iterator[None]:
    """Say of a refusal that the enclave may have no keys of an experimental type at all."""
    try:
        yield
    except EnclaveRefused as error:
        if not key_type.facts.experimental:
            raise
        address = key_type.facts.address
        raise EnclaveRefused(
            f"{error}: tee-signer, and enclave-signer before 0.2.0, have no {address} keys: use an enclave that has"
        ) from error


async def _make_one(client: EnclaveClient, key_type: KeyType) -> tuple[VaultKey, bytes]:
    with _explained(key_type):
        sealed = await client.generate(key_type)
    if sealed.public_key.key_type is not key_type:
        raise EnclaveRefused(f"the enclave made a key of type {sealed.public_key.key_type}, not {key_type}")
    return opened_key(sealed.public_key, public_key_hash(sealed.public_key)), sealed.blob


async def _why_closed(client: EnclaveClient, key: VaultKey, blobs: Sequence[bytes]) -> str | None:
    """Return why no blob opens as a key; None when the enclave's sealer opens one.

    Raises:
        SealerUnavailable: Not known: the enclave's sealer gave no answer.
    """
    why = ""
    for blob in blobs:
        try:
            public_key = await client.public_key_from(blob)
        except EnclaveRefused as error:
            why = str(error)
            continue
        if public_key == key.public_key:
            return None
        why = f"its blob holds another key, {public_key_hash(public_key)}"
    return why


@asynccontextmanager
async def open_provisioning(
    store: KeyStore, enclave: Endpoint, *, name: str = "vault", limits: LinkLimits = DEFAULT_LIMITS
) -> AsyncIterator[Provisioning]:
    """Connect to an enclave to make keys and to take them in; nothing that is stored is opened.

    Raises:
        EnclaveRefused, EnclaveUnavailable: The enclave does not answer, or not with yes.
    """
    side = SideConnection(enclave, limits)
    try:
        async with side.use():
            # If there can be no key, the caller learns it at once.
            pass
        yield Provisioning(name, store, side.use)
    finally:
        side.close()
