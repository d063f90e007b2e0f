"""Opening the blobs of a key on a connection, and comparing what comes out with the stored hash.

- An answer that names another key is asked for again on a connection of its own before it counts: either the blob is
  another key's, or this connection's answers do not belong to its calls, and then the connection ends. Where no such
  connection can be made, the key is out of service unconfirmed; only if all answers name other keys, the connection ends.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from enclave_signer.protocol.messages import ImportedKey, PublicKey
from host_backend.enclave.client import EnclaveClient, GetConnection
from host_backend.errors import (
    BlobCorrupt,
    EnclaveRefused,
    EnclaveUnavailable,
    HostError,
    NotReleased,
    ReleaseDenied,
    SealerUnavailable,
)
from host_backend.vault.keys import KeyEvent, VaultKey, opened_key


@dataclass(frozen=True, slots=True)
class Opened:
    """A key, and the blob that it was opened by."""

    key: VaultKey
    blob: bytes


@dataclass(frozen=True, slots=True)
class Unopened:
    """Why no blob of a key opens."""

    reason: str
    event: KeyEvent = KeyEvent.REFUSED
    #: Whether it may be that the answer was another call's.
    doubtful: bool = False

    @property
    def released(self) -> bool:
        """Whether it is not for want of a release that it does not open."""
        return self.event not in (KeyEvent.NOT_RELEASED, KeyEvent.DENIED)


class Opener:
    """Opens blobs.

    Args:
        known: The keys that were opened before.
        separate: Gives a connection that no other task uses.
    """

    def __init__(self, known: Mapping[str, VaultKey], separate: GetConnection) -> None:
        self._known = known
        self._separate = separate
        self._checking_order = asyncio.Lock()

    async def open(self, client: EnclaveClient, pkh: str, blobs: tuple[bytes, ...]) -> Opened | Unopened:
        """Return the key, now open on this connection, or why none of its blobs opens."""
        unopened: Unopened | None = None
        for blob in blobs:
            try:
                imported = await client.import_blob(blob)
            except (EnclaveRefused, SealerUnavailable) as error:
                unopened = _more_hopeful(unopened, unopened_by(error))
                continue
            try:
                key = self._checked(imported.public_key, pkh)
            except EnclaveRefused as error:
                doubt = await self._check_order(client, blob, imported)
                unopened = _more_hopeful(unopened, Unopened(f"{error}{doubt}", doubtful=bool(doubt)))
            else:
                client.hold(pkh, imported.handle)
                return Opened(key, blob)
        return unopened or Unopened("it has no blob")

    def _checked(self, public_key: PublicKey, pkh: str) -> VaultKey:
        known = self._known.get(pkh)
        return known if known is not None and known.public_key == public_key else opened_key(public_key, pkh)

    async def _check_order(self, client: EnclaveClient, blob: bytes, imported: ImportedKey) -> str:
        """Return nothing when another connection opens a blob as the same key, or why it could not be asked.

        Raises:
            EnclaveUnavailable: It opens it as another key, or not; this connection was closed.
        """
        again: ImportedKey | None = None
        # One at a time: when answers do not belong to calls, all of them name other keys at once.
        async with self._checking_order:
            if client.alive:
                async with AsyncExitStack() as stack:
                    try:
                        other = await stack.enter_async_context(self._separate())
                    except HostError as error:
                        return f": not confirmed, as no further connection to the enclave could be made: {error}"
                    again = await _import(other, blob)
        if again is None or again.public_key != imported.public_key:
            client.close()
            raise EnclaveUnavailable("the enclave's answers do not belong to the calls: the connection was closed")
        return ""


def unopened_by(error: EnclaveRefused | SealerUnavailable) -> Unopened:
    """Return what the enclave's no means for a key."""
    return Unopened(str(error), _event_of(error))


def _event_of(error: EnclaveRefused | SealerUnavailable) -> KeyEvent:
    match error:
        case NotReleased():
            return KeyEvent.NOT_RELEASED
        case ReleaseDenied():
            return KeyEvent.DENIED
        case SealerUnavailable():
            return KeyEvent.UNANSWERED
        case BlobCorrupt():
            return KeyEvent.CORRUPT
        case _:
            return KeyEvent.REFUSED


#: Of several blobs of one key, the one that may still open decides when it is tried again.
_HOPE = {
    KeyEvent.UNANSWERED: 4,
    KeyEvent.NOT_RELEASED: 3,
    KeyEvent.REFUSED: 2,
    KeyEvent.DENIED: 1,
    KeyEvent.CORRUPT: 0,
}


def _more_hopeful(one: Unopened | None, other: Unopened) -> Unopened:
    return other if one is None or _HOPE[other.event] >= _HOPE[one.event] else one


async def _import(client: EnclaveClient, blob: bytes) -> ImportedKey | None:
    """Return the key of a blob, or None if it does not open."""
    try:
        return await client.import_blob(blob)
    except (EnclaveRefused, SealerUnavailable):
        return None
