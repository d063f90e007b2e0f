"""The keys of one vault: what is stored, what is open where, and what is out of service.

- Every public key that the enclave gives is checked against the stored hash.
- A blob that does not open, or opens as another key, takes its own key out of service, never the vault. It is tried
  again from time to time: the sealer may have been away.
- An answer that names another key is asked for again on a connection of its own before it counts: either the blob is
  another key's, or this connection's answers do not belong to its calls, and then the connection ends.
- What appears in the store while the vault is open, added by whomever, is opened: first on the second connection, so
  that no signature waits for the sealer, then where signing happens.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from enclave_signer.curves import CurveError, VerifyingKey, curve
from enclave_signer.protocol.messages import ImportedKey, PublicKey
from enclave_signer.tezos import public_key_hash
from host_backend.enclave.client import EnclaveClient
from host_backend.errors import EnclaveRefused, EnclaveUnavailable, HostError
from host_backend.keystore.base import KeyStore, StoredKey
from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Imports in flight while keys are restored: enough to hide a cloud's latency, few enough that none waits too long.
RESTORE_IN_FLIGHT = 64

#: Gives another connection to the same enclave.
GetConnection = Callable[[], AbstractAsyncContextManager[EnclaveClient]]


@dataclass(frozen=True, slots=True)
class VaultKey:
    """A key that was opened at least once: its hash, and its public key."""

    pkh: str
    public_key: PublicKey
    verifying_key: VerifyingKey = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Opened:
    key: VaultKey
    blob: bytes = field(repr=False)


class Keyring:
    """The keys of one vault.

    Args:
        vault: Its name, for the log.
        store: Where the blobs are kept.
        second: Gives the connection for calls that may leave the enclave.
        separate: Gives a connection that nobody else uses.
        on_key: Told of every key when it comes into service for the first time.
        on_restored: Told, after each key of a restoring, how many it has dealt with, and of how many.
    """

    def __init__(
        self,
        vault: str,
        store: KeyStore,
        second: GetConnection,
        separate: GetConnection,
        on_key: Callable[[VaultKey], None],
        on_restored: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> None:
        self._vault = vault
        self._store = store
        self._second = second
        self._separate = separate
        self._on_key = on_key
        self._on_restored = on_restored
        self._checking_order = asyncio.Lock()
        self._revision: str | None = None
        self._stored: dict[str, tuple[bytes, ...]] = {}
        self._untried: set[str] = set()
        #: Keys that were opened at least once, in the order in which that happened.
        self.keys: dict[str, VaultKey] = {}
        #: Hashes of stored keys that cannot sign, and why.
        self.quarantined: dict[str, str] = {}
        #: Why the store could not be read last; None when it could.
        self.store_problem: str | None = None
        #: Keys that the present restoring, or the last one, has dealt with.
        self.restored_count = 0

    @property
    def stored_count(self) -> int:
        """How many keys are stored."""
        return len(self._stored)

    def stores(self, pkh: str) -> bool:
        """Whether a key is stored, opened or not."""
        return pkh in self._stored

    async def load(self) -> None:
        """Read the store if it has changed; what was stored once stays known.

        Raises:
            ConfigError, StoreUnavailable: It cannot be read.
        """
        revision = await self._store.revision()
        if revision == self._revision:
            return
        blobs: dict[str, tuple[bytes, ...]] = {}
        for stored in await self._store.load():
            # A store may hold a key twice, as Signatory's import does: one good blob is enough.
            blobs[stored.pkh] = (*blobs.get(stored.pkh, ()), stored.blob)
        self._untried |= {pkh for pkh, now in blobs.items() if self._stored.get(pkh) != now}
        self._stored.update(blobs)
        self._revision = revision

    async def look_again(self) -> None:
        """Read the store if it has changed; trouble is noted and told, and what was read before stays good."""
        try:
            await self.load()
        except HostError as error:
            if self.store_problem != str(error):
                self.store_problem = str(error)
                logger.error("no new keys are seen: %s", error, extra=fields(vault=self._vault))  # noqa: TRY400 -- no bug
        else:
            self.store_problem = None

    async def add(self, key: VaultKey, blob: bytes) -> bool:
        """Store a new key durably; return whether it was new, and not stored already.

        Raises:
            ConfigError, StoreUnavailable: It could not be stored.
        """
        if not await self._store.add(StoredKey(key.pkh, blob)):
            return False
        self._stored[key.pkh] = (blob,)
        return True

    async def replace(self, key: VaultKey, blob: bytes) -> None:
        """Store a key durably in place of what is stored of it, which the store keeps aside.

        Raises:
            ConfigError, StoreUnavailable: It could not be stored.
        """
        await self._store.replace(StoredKey(key.pkh, blob))
        self._stored[key.pkh] = (blob,)

    async def restore(self, client: EnclaveClient) -> bool:
        """Open every stored blob on a new connection; return whether all keys are in service.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The connection ended, or its answers do not belong to its calls.
        """
        limit = asyncio.Semaphore(RESTORE_IN_FLIGHT)
        self.restored_count = 0

        async def restore_one(pkh: str, blobs: tuple[bytes, ...]) -> _Opened | str:
            async with limit:
                outcome = await self._open(client, pkh, blobs)
            self.restored_count += 1
            self._on_restored(self.restored_count, len(stored))
            return outcome

        stored = dict(self._stored)
        self._untried.clear()
        outcomes = await asyncio.gather(*(restore_one(pkh, blobs) for pkh, blobs in stored.items()))
        for pkh, outcome in zip(stored, outcomes, strict=True):
            self._note(pkh, outcome)
        return not self.quarantined

    async def open_missing(self, client: EnclaveClient, *, reopen: bool) -> None:
        """Open what is stored and not open on the connection for signatures.

        Args:
            client: The connection for signatures.
            reopen: Whether to try keys again that are out of service, and whose blobs are the old ones.

        Raises:
            EnclaveRefused, EnclaveUnavailable: A connection ended.
        """
        limit = asyncio.Semaphore(RESTORE_IN_FLIGHT)

        async def open_one(pkh: str) -> None:
            async with limit:
                await self._open_missing(client, pkh)

        await asyncio.gather(*(open_one(pkh) for pkh in self._missing(client, reopen=reopen)))

    def _missing(self, client: EnclaveClient, *, reopen: bool) -> list[str]:
        return [
            pkh
            for pkh in self._stored
            if not client.holds(pkh) and (reopen or pkh in self._untried or pkh not in self.quarantined)
        ]

    async def _open_missing(self, client: EnclaveClient, pkh: str) -> None:
        self._untried.discard(pkh)
        try:
            async with self._second() as second:
                outcome = await self._open(second, pkh, self._stored[pkh])
        except HostError:
            self._untried.add(pkh)
            raise
        if isinstance(outcome, _Opened):
            await self.bring_in(client, outcome.key, outcome.blob)
        else:
            self._note(pkh, outcome)

    async def bring_in(self, client: EnclaveClient, key: VaultKey, blob: bytes) -> None:
        """Open a key on the connection for signatures that was just open on the second one, and announce it.

        Raises:
            EnclaveRefused, EnclaveUnavailable: The connection ended.
        """
        self._note(key.pkh, await self._open(client, key.pkh, (blob,)))

    def _note(self, pkh: str, outcome: _Opened | str) -> None:
        if isinstance(outcome, _Opened):
            if self.quarantined.pop(pkh, None) is not None:
                logger.info("key back in service", extra=fields(pkh=pkh, vault=self._vault))
            if pkh not in self.keys:
                self._on_key(outcome.key)
            self.keys[pkh] = outcome.key
        elif self.quarantined.get(pkh) != outcome:
            self.quarantined[pkh] = outcome
            logger.error("key out of service: %s", outcome, extra=fields(pkh=pkh, vault=self._vault))

    async def _open(self, client: EnclaveClient, pkh: str, blobs: tuple[bytes, ...]) -> _Opened | str:
        """Return the key, now open on this connection, or why none of its blobs opens."""
        reason = "it has no blob"
        for blob in blobs:
            try:
                imported = await client.import_blob(blob)
            except EnclaveRefused as error:
                reason = str(error)
                continue
            try:
                key = self._checked(imported.public_key, pkh)
            except EnclaveRefused as error:
                await self._check_order(client, blob, imported)
                reason = str(error)
            else:
                client.hold(pkh, imported.handle)
                return _Opened(key, blob)
        return reason

    def _checked(self, public_key: PublicKey, pkh: str) -> VaultKey:
        known = self.keys.get(pkh)
        return known if known is not None and known.public_key == public_key else checked_key(public_key, pkh)

    async def _check_order(self, client: EnclaveClient, blob: bytes, imported: ImportedKey) -> None:
        """Pass when another connection opens a blob as the same key; else end this one."""
        again: ImportedKey | None = None
        # One at a time: when answers do not belong to calls, all of them name other keys at once.
        async with self._checking_order:
            if client.alive:
                async with self._separate() as other:
                    again = await _import(other, blob)
        if again is None or again.public_key != imported.public_key:
            client.close()
            raise EnclaveUnavailable("the enclave's answers do not belong to the calls: the connection was closed")


async def _import(client: EnclaveClient, blob: bytes) -> ImportedKey | None:
    """Return the key of a blob, or None if it does not open."""
    try:
        return await client.import_blob(blob)
    except EnclaveRefused:
        return None


def checked_key(public_key: PublicKey, pkh: str) -> VaultKey:
    """Return a key that the enclave has opened.

    Raises:
        EnclaveRefused: It is another key than that of the hash, or none.
    """
    actual = public_key_hash(public_key)
    if actual != pkh:
        raise EnclaveRefused(f"its blob holds another key, {actual}")
    try:
        verifying_key = curve(public_key.key_type).parse_public_key(public_key.data)
    except CurveError as error:
        raise EnclaveRefused(f"the enclave's public key is none: {error}") from None
    return VaultKey(pkh, public_key, verifying_key)
