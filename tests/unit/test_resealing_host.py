"""What the host believes of an enclave that reseals keys: only a blob of the key that it asked for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from enclave_signer.curves import SigningKey, curve
from enclave_signer.protocol.blob import BlobHeader
from enclave_signer.protocol.errors import WireError
from enclave_signer.protocol.messages import (
    Credentials,
    GetPublicKeyFrom,
    KeyType,
    PrivateKey,
    PublicKey,
    Request,
    Reseal,
    Result,
    SealedKey,
)
from enclave_signer.tezos import public_key_hash
from host_backend.addresses import Address
from host_backend.enclave.endpoint import Endpoint
from host_backend.errors import StoreUnavailable, Unanswered
from host_backend.keystore.base import Before, StoredKey
from host_backend.vault.provisioning import BATCH
from host_backend.vault.resealing import Moved, Resealing, open_resealing
from tests.doubles.auto_enclave import AutoEnclave
from tests.doubles.memory_keys import MemoryKeys

TARGET = "projects/p/k"


def key(number: int) -> SigningKey:
    return curve(KeyType.ED25519).open(PrivateKey(KeyType.ED25519, number.to_bytes(32, "big")))


KEY, OTHER = key(1), key(2)


def stored(each: SigningKey, blob: bytes = b"legacy") -> StoredKey:
    return StoredKey(public_key_hash(each.public_key), blob)


def ours(public_key: PublicKey, kek: str = TARGET) -> bytes:
    return BlobHeader("gcp_kms", kek, public_key).encode() + b"sealed"


@asynccontextmanager
async def resealing(
    store: MemoryKeys, answer: Callable[[Request], Result | WireError]
) -> AsyncIterator[tuple[Resealing, AutoEnclave]]:
    enclave = AutoEnclave({})
    enclave.instead = lambda _, request: answer(request)
    await enclave.listen()
    try:
        async with open_resealing(store, Endpoint(Address("127.0.0.1", enclave.port), Credentials())) as opened:
            yield opened, enclave
    finally:
        enclave.stop()


def resealed(store: MemoryKeys, answer: Result | WireError) -> list[Moved]:
    """Return what became of all keys of a store, when `Reseal` is answered so."""

    async def main() -> list[Moved]:
        async with resealing(store, lambda request: answer if isinstance(request, Reseal) else None) as (opened, _):
            moves, _ = await opened.moves_to(TARGET)
            return [moved async for moved in opened.run(moves, Before.RESEAL)]

    return asyncio.run(main())


def test_the_blob_of_the_key_under_the_target_is_stored() -> None:
    store = MemoryKeys(stored(KEY))
    (moved,) = resealed(store, SealedKey(ours(KEY.public_key), KEY.public_key))
    assert moved.obstacle is None
    assert store.stored == [stored(KEY, ours(KEY.public_key))]
    assert [*store.copies.values()] == [(stored(KEY),)]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (SealedKey(ours(OTHER.public_key), OTHER.public_key), "the blob holds another key, tz1"),
        (SealedKey(ours(OTHER.public_key), KEY.public_key), "sealed something else than it was asked for"),
        (SealedKey(ours(KEY.public_key, "projects/p/x"), KEY.public_key), "sealed something else"),
        (SealedKey(b"legacy, too", KEY.public_key), "the enclave's answer: blob corrupt: not a blob of this sealer"),
        (SealedKey(ours(KEY.public_key)[:20], KEY.public_key), "the enclave's answer: blob corrupt: truncated"),
        (WireError("this image does not allow it"), "this image does not allow it"),
    ],
)
def test_anything_else_is_not(answer: Result | WireError, text: str) -> None:
    store = MemoryKeys(stored(KEY))
    (moved,) = resealed(store, answer)
    assert moved.obstacle is not None
    assert text in moved.obstacle
    assert (store.stored, store.copies) == ([stored(KEY)], {})


def test_what_is_not_answered_ends_the_run_and_is_left() -> None:
    store = MemoryKeys(stored(KEY), stored(OTHER))

    async def main() -> None:
        async with resealing(store, lambda _: None) as (opened, enclave):
            enclave.hold(1, Reseal)
            moves, _ = await opened.moves_to(TARGET)

            async def run() -> list[Moved]:
                return [moved async for moved in opened.run(moves, Before.RESEAL)]

            running = asyncio.create_task(run())
            await enclave.wait_for(Reseal)
            enclave.hang_up()
            with pytest.raises(Unanswered):
                await running

    asyncio.run(main())
    assert (store.stored, store.copies) == ([stored(KEY), stored(OTHER)], {})


def test_nothing_changes_that_cannot_be_kept() -> None:
    class NothingKept(MemoryKeys):
        async def keep(self, utc: str, before: Before) -> None:
            raise StoreUnavailable(f"no room for {utc} before {before}")

    store = NothingKept(stored(KEY))
    with pytest.raises(StoreUnavailable, match="no room for"):
        resealed(store, SealedKey(ours(KEY.public_key), KEY.public_key))
    assert store.stored == [stored(KEY)]


def test_batch_by_batch_with_one_copy() -> None:
    keys = [key(number) for number in range(1, 2 * BATCH + 2)]
    by_hash = {public_key_hash(each.public_key): each for each in keys}
    store = MemoryKeys(*(stored(each, pkh.encode()) for pkh, each in by_hash.items()))

    def answer(request: Request) -> Result | WireError:
        if not isinstance(request, Reseal):
            return None
        public_key = by_hash[request.blob.decode()].public_key
        return SealedKey(ours(public_key), public_key)

    async def main() -> tuple[int, ...]:
        async with resealing(store, answer) as (opened, enclave):
            moves, there = await opened.moves_to(TARGET)
            assert there == 0
            asked = [len(enclave.asked(Reseal)) async for _ in opened.run(moves, Before.RESEAL)]
            assert await opened.moves_to(TARGET) == ([], len(keys))
            return asked[0], asked[BATCH], asked[-1]

    assert asyncio.run(main()) == (BATCH, 2 * BATCH, len(keys))
    assert len(store.copies) == 1


def test_a_hash_that_is_stored_twice_is_put_back_twice() -> None:
    store = MemoryKeys(stored(KEY, b"one"), stored(OTHER, b"other"), stored(KEY, b"two"))

    def answer(request: Request) -> Result | WireError:
        if isinstance(request, Reseal):
            public_key = (OTHER if request.blob == b"other" else KEY).public_key
            return SealedKey(ours(public_key) + request.blob, public_key)
        if isinstance(request, GetPublicKeyFrom):
            return (OTHER if request.blob.endswith(b"other") else KEY).public_key
        return None

    async def main() -> None:
        before = list(store.stored)
        async with resealing(store, answer) as (opened, _):
            moves, _there = await opened.moves_to(TARGET)
            assert [moved.obstacle async for moved in opened.run(moves, Before.RESEAL)] == [None] * 3
            assert [move.blob for move in await opened.moves_back(Before.RESEAL)] == [b"one", b"other", b"two"]
            after = list(store.stored)
            for _ in range(2):
                back = await opened.moves_back(Before.RESEAL)
                assert [moved.obstacle async for moved in opened.run(back, Before.UNDO)] == [None] * 3
                assert await opened.moves_back(Before.RESEAL) == []
                assert store.stored == before
                # That is undone in its turn: what it replaced was kept.
                again = await opened.moves_back(Before.UNDO)
                assert [moved.obstacle async for moved in opened.run(again, Before.RESEAL)] == [None] * 3
                assert store.stored == after

    asyncio.run(main())
    # Nothing is kept twice.
    assert [kept_before for kept_before, _ in store.copies] == [Before.RESEAL, Before.UNDO]
