"""Resealing stored keys under another key-encryption key, and restoring the replaced blobs.

- A blob sealed under the target is left as it is: its header says so. So the next run finishes one that was
  interrupted.
- All keys are kept aside before the first entry changes. Its replacement was seen to open, in the enclave, as
  the key that the entry names.
- An entry that somebody changes meanwhile stays as they have it.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from enclave_signer.protocol.blob import parse_blob
from enclave_signer.protocol.errors import BadBlob
from enclave_signer.protocol.messages import PublicKey
from enclave_signer.tezos import public_key_hash
from host_backend.enclave.client import EnclaveClient, GetConnection
from host_backend.enclave.endpoint import Endpoint
from host_backend.enclave.side_connection import SideConnection
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits
from host_backend.errors import EnclaveRefused
from host_backend.keystore.base import Before, KeyStore, StoredKey
from host_backend.vault.keks import kek_of
from host_backend.vault.provisioning import BATCH


@dataclass(frozen=True, slots=True)
class Move:
    """A stored key to reseal.

    Attributes:
        stored: As it is stored now.
        source: What it is sealed under, by its header.
        target: The key to seal it under.
        blob: What to put in its place; None where the enclave has to make it.
    """

    stored: StoredKey
    source: str
    target: str
    blob: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of a move; `obstacle` says why the entry is as it was, None that it is changed."""

    move: Move
    obstacle: str | None


class Resealing:
    """Reseals the keys of one store.

    Args:
        store: Where the blobs are kept.
        connection: Gives a connection to the enclave that does not sign.
    """

    def __init__(self, store: KeyStore, connection: GetConnection) -> None:
        self._store = store
        self._connection = connection

    async def moves_to(self, target: str, *, again: bool = False) -> tuple[list[Move], int]:
        """Return the moves that bring all keys under `target`, and how many are there already; asks no enclave.

        Args:
            target: The name of a key-encryption key.
            again: Also reseal those under it already: it may have a newer version.

        Raises:
            ConfigError, StoreUnavailable: The store cannot be read.
        """
        stored = dict.fromkeys(await self._store.load())
        moves = [Move(each, source, target) for each in stored if (source := kek_of(each.blob)) != target or again]
        return moves, len(stored) - len(moves)

    async def moves_back(self, before: Before) -> list[Move]:
        """Return the moves that restore all keys as they were kept last; asks no enclave.

        Args:
            before: Before what.

        Raises:
            ConfigError, StoreUnavailable: The store cannot be read.
        """
        kept = await self._store.kept(before)
        was: defaultdict[str, list[bytes]] = defaultdict(list)
        for each in kept.keys if kept is not None else ():
            was[each.pkh].append(each.blob)
        moves = []
        for each in await self._store.load():
            # A hash may be stored several times; both lists have the same order.
            blob = was[each.pkh].pop(0) if was[each.pkh] else each.blob
            if blob != each.blob:
                moves.append(Move(each, kek_of(each.blob), kek_of(blob), blob))
        return moves

    async def where_kept(self, before: Before) -> str | None:
        """Return where the keys are that were kept last before such a change; None if there are none."""
        kept = await self._store.kept(before)
        return None if kept is None else kept.where

    async def run(self, moves: Sequence[Move], before: Before) -> AsyncIterator[Moved]:
        """Make the moves in order, and yield each outcome once it is durable.

        Args:
            moves: In order.
            before: The series of copies that all keys are kept in first.

        Raises:
            EnclaveUnavailable: No answer to one; those that were yielded are done. Run again later.
            ConfigError, StoreUnavailable: The store could not be changed.
        """
        kept = False
        for start in range(0, len(moves), BATCH):
            batch = moves[start : start + BATCH]
            async with self._connection() as client:
                outcomes = await asyncio.gather(*(_blob_for(client, move) for move in batch), return_exceptions=True)
            made = {move: blob for move, blob in zip(batch, outcomes, strict=True) if isinstance(blob, bytes)}
            if made and not kept:
                await self._keep(moves, before)
                kept = True
            exchanged = await self._store.exchange({move.stored: blob for move, blob in made.items()})
            for move, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, EnclaveRefused):
                    yield Moved(move, str(outcome))
                elif move in made:
                    yield Moved(move, None if move.stored in exchanged else "its entry was changed meanwhile")
            for outcome in outcomes:
                if isinstance(outcome, BaseException) and not isinstance(outcome, EnclaveRefused):
                    raise outcome

    async def _keep(self, moves: Sequence[Move], before: Before) -> None:
        """Keep all keys aside, unless all that is replaced was: by a run that is only finished, or before it was undone."""
        kept = await self._store.kept(before)
        if kept is None or not {move.stored for move in moves} <= {*kept.keys}:
            await self._store.keep(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()), before)


async def _blob_for(client: EnclaveClient, move: Move) -> bytes:
    """Return a blob that was seen to open as the key of an entry.

    Raises:
        EnclaveRefused: There is none.
        EnclaveUnavailable: Not known.
    """
    if move.blob is not None:
        _check_key(await client.public_key_from(move.blob), move)
        return move.blob
    sealed = await client.reseal(move.stored.blob, move.target)
    _check_key(sealed.public_key, move)
    try:
        header, _, _ = parse_blob(sealed.blob)
    except BadBlob as error:
        raise EnclaveRefused(f"the enclave's answer: {error}") from None
    if (header.kek, header.public_key) != (move.target, sealed.public_key):
        raise EnclaveRefused("the enclave sealed something else than it was asked for")
    return sealed.blob


def _check_key(public_key: PublicKey, move: Move) -> None:
    if (pkh := public_key_hash(public_key)) != move.stored.pkh:
        raise EnclaveRefused(f"the blob holds another key, {pkh}")


@asynccontextmanager
async def open_resealing(
    store: KeyStore, enclave: Endpoint, *, limits: LinkLimits = DEFAULT_LIMITS
) -> AsyncIterator[Resealing]:
    """Give the resealing of a store's keys; it connects to the enclave when it first asks."""
    side = SideConnection(enclave, limits)
    try:
        yield Resealing(store, side.use)
    finally:
        side.close()
