"""What every `KeyStore` does. A new store joins by one more entry in `STORES`."""

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from functools import cache
from pathlib import Path
from typing import TypeVar, get_args

import pytest

from host_backend.config.key_storage import KeyPlace, Place
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.keystore.base import MAX_BLOB_BYTES, MAX_PKH_CHARS, Before, KeyStore, StoredKey
from host_backend.keystore.file import FileKeyStore
from host_backend.keystore.firestore import FirestoreKeyStore
from host_backend.keystore.gcs import BucketKeyStore
from tests.conformance import at_google
from tests.doubles.google.buckets import bucket_at, running_emulator
from tests.doubles.google.clients import connected
from tests.doubles.google.firestore import running_firestore
from tests.doubles.google.storage import running_storage

T = TypeVar("T")

#: Opens the same storage each time it is called.
OpenKeyStore = Callable[[], AbstractAsyncContextManager[KeyStore]]


@contextmanager
def in_file(folder: Path) -> Iterator[OpenKeyStore]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[KeyStore]:
        yield FileKeyStore(folder / "keys.json")

    yield opened


@contextmanager
def in_firestore(folder: Path) -> Iterator[OpenKeyStore]:
    with running_firestore() as double:

        @asynccontextmanager
        async def opened() -> AsyncIterator[KeyStore]:
            store = FirestoreKeyStore(connected(double.address, "encrypted_keys"))
            try:
                yield store
            finally:
                await store.aclose()

        yield opened


@contextmanager
def in_bucket(folder: Path) -> Iterator[OpenKeyStore]:
    with running_storage() as double:
        yield opening_bucket(double.address, "enclave-host/")


@contextmanager
def in_emulated_bucket(folder: Path) -> Iterator[OpenKeyStore]:
    """Each storage is a prefix of its own in one emulator, which runs to the end of the tests."""
    yield opening_bucket(emulator(), f"{secrets.token_hex(8)}/")


def opening_bucket(address: str, prefix: str) -> OpenKeyStore:
    @asynccontextmanager
    async def opened() -> AsyncIterator[KeyStore]:
        store = BucketKeyStore(bucket_at(address, prefix))
        try:
            yield store
        finally:
            await store.aclose()

    return opened


_RUNNING = ExitStack()


@cache
def emulator() -> str:
    return _RUNNING.enter_context(running_emulator())


@pytest.fixture(scope="module", autouse=True)
def _ended_emulator() -> Iterator[None]:
    yield
    _RUNNING.close()
    emulator.cache_clear()


@contextmanager
def at_google_s(folder: Path) -> Iterator[OpenKeyStore]:
    place = at_google.new_place()

    @asynccontextmanager
    async def opened() -> AsyncIterator[KeyStore]:
        store = FirestoreKeyStore(await at_google.open_firestore(place))
        try:
            yield store
        finally:
            await store.aclose()

    yield opened


@contextmanager
def in_googles_bucket(folder: Path) -> Iterator[OpenKeyStore]:
    place = at_google.new_prefix()

    @asynccontextmanager
    async def opened() -> AsyncIterator[KeyStore]:
        store = BucketKeyStore(await at_google.open_storage(place))
        try:
            yield store
        finally:
            await store.aclose()

    yield opened


#: An empty storage of each kind, in a folder or elsewhere.
STORES: dict[str, Callable[[Path], AbstractContextManager[OpenKeyStore]]] = {
    "file": in_file,
    "firestore": in_firestore,
    "gcs": in_bucket,
    "gcs in the emulator": in_emulated_bucket,
}
if at_google.firestore_is_configured():
    STORES[at_google.FIRESTORE_AT_GOOGLE] = at_google_s
if at_google.storage_is_configured():
    STORES[at_google.STORAGE_AT_GOOGLE] = in_googles_bucket


@pytest.mark.parametrize("place", get_args(KeyPlace))
def test_what_a_configuration_can_name_is_in_the_suite(place: type[KeyPlace]) -> None:
    assert not inspect.isabstract(place), f"{place.__name__} says nothing of {sorted(place.__abstractmethods__)}"
    assert set(place.drivers) & STORES.keys(), f"no entry in STORES for {place.drivers}"


def test_every_place_of_keys_can_be_configured() -> None:
    assert {place.__name__ for place in Place.__subclasses__()} == {place.__name__ for place in get_args(KeyPlace)}


class Driven:
    """A store, and the loop that it belongs to."""

    def __init__(self, store: KeyStore, runner: asyncio.Runner) -> None:
        self.store = store
        self._runner = runner

    def run(self, work: Awaitable[T]) -> T:
        async def all_of_it() -> T:
            return await work

        return self._runner.run(all_of_it())


OpenStore = Callable[[], Driven]

FIRST = StoredKey("tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", b"\x00first blob\xff")
SECOND = StoredKey("tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME", b"second blob")


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    with STORES[request.param](tmp_path) as opened, asyncio.Runner() as runner:
        closing = AsyncExitStack()

        def open_one() -> Driven:
            return Driven(runner.run(closing.enter_async_context(opened())), runner)

        yield open_one
        runner.run(closing.aclose())


def load(store: Driven) -> tuple[StoredKey, ...]:
    return store.run(store.store.load())


def add(store: Driven, *keys: StoredKey) -> frozenset[str]:
    return store.run(store.store.add(keys))


def replace(store: Driven, key: StoredKey, *expected: bytes) -> None:
    store.run(store.store.replace(key, expected))


def test_starts_without_keys(open_store: OpenStore) -> None:
    assert load(open_store()) == ()


def test_keys_come_back_in_the_order_of_adding(open_store: OpenStore) -> None:
    store = open_store()
    assert add(store, SECOND)
    assert add(store, FIRST)
    assert load(store) == load(open_store()) == (SECOND, FIRST)


def test_same_hash_is_not_stored_twice(open_store: OpenStore) -> None:
    store = open_store()
    assert add(store, FIRST)
    assert not add(store, FIRST)
    assert not add(store, StoredKey(FIRST.pkh, b"another blob"))
    assert load(store) == (FIRST,)


def test_a_key_is_replaced_in_its_place(open_store: OpenStore) -> None:
    store = open_store()
    new = StoredKey(FIRST.pkh, b"new blob")
    for key in (FIRST, SECOND):
        assert add(store, key)
    replace(store, new, FIRST.blob)
    assert load(store) == load(open_store()) == (new, SECOND)


@pytest.mark.parametrize("expected", [(), (b"another blob",), (FIRST.blob, FIRST.blob)])
def test_what_was_changed_meanwhile_is_not_replaced(open_store: OpenStore, expected: tuple[bytes, ...]) -> None:
    store = open_store()
    add(store, FIRST, SECOND)
    with pytest.raises(StoreUnavailable, match="was changed meanwhile: try again"):
        replace(store, StoredKey(FIRST.pkh, b"new blob"), *expected)
    assert load(store) == load(open_store()) == (FIRST, SECOND)


def test_of_two_who_replace_one_key_one_does(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(6)]
    add(stores[0], FIRST)
    new = [StoredKey(FIRST.pkh, b"new blob %d" % number) for number in range(6)]

    async def replace_all() -> list[BaseException | None]:
        replacing = (each.store.replace(key, [FIRST.blob]) for each, key in zip(stores, new, strict=True))
        return await asyncio.gather(*replacing, return_exceptions=True)

    outcomes = stores[0].run(replace_all())
    assert outcomes.count(None) == 1
    assert load(open_store()) == (new[outcomes.index(None)],)


def test_keys_are_added_together(open_store: OpenStore) -> None:
    store = open_store()
    assert add(store, FIRST) == {FIRST.pkh}
    more = [StoredKey(f"tz1{number}", b"blob") for number in range(3)]
    assert add(store, more[0], FIRST, *more[1:]) == {key.pkh for key in more}
    assert load(open_store()) == (FIRST, *more)
    assert add(store, *more) == frozenset()


def test_of_keys_that_are_added_together_none_is_stored_if_one_cannot_be(open_store: OpenStore) -> None:
    with pytest.raises(ConfigError, match="must have 1 to"):
        add(open_store(), FIRST, StoredKey("tz1", b""))
    assert load(open_store()) == ()


def test_two_users_of_one_storage_do_not_lose_each_others_keys(open_store: OpenStore) -> None:
    one, other = open_store(), open_store()
    assert load(one) == load(other) == ()
    assert add(one, FIRST)
    assert add(other, SECOND)
    assert not add(one, SECOND)
    assert load(one) == load(other) == (FIRST, SECOND)


def test_concurrent_adding_loses_nothing(open_store: OpenStore) -> None:
    keys = [StoredKey(f"tz1{number}", b"blob %d" % number) for number in range(12)]

    stores = [open_store(), open_store()]

    async def add_all() -> list[frozenset[str]]:
        return await asyncio.gather(*(stores[index % 2].store.add([key]) for index, key in enumerate(keys * 2)))

    assert sum(map(len, stores[0].run(add_all()))) == len(keys)
    assert set(load(open_store())) == set(keys)
    assert len(load(open_store())) == len(keys)


def test_of_sixteen_who_add_one_key_one_does(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(16)]
    keys = [StoredKey(FIRST.pkh, b"blob %d" % number) for number in range(16)]

    async def add_all() -> list[frozenset[str]]:
        return await asyncio.gather(*(each.store.add([key]) for each, key in zip(stores, keys, strict=True)))

    (winner,) = (key for key, new in zip(keys, stores[0].run(add_all()), strict=True) if new)
    assert load(open_store()) == (winner,)


def test_sizes_at_the_limits_are_kept(open_store: OpenStore) -> None:
    store = open_store()
    largest = StoredKey("p" * MAX_PKH_CHARS, bytes(MAX_BLOB_BYTES))
    assert add(store, largest)
    assert add(store, StoredKey("p", b"\x00"))
    assert load(store) == (largest, StoredKey("p", b"\x00"))


@pytest.mark.parametrize(
    "key",
    [
        StoredKey("", b"blob"),
        StoredKey("p" * (MAX_PKH_CHARS + 1), b"blob"),
        StoredKey("tz1", b""),
        StoredKey("tz1", bytes(MAX_BLOB_BYTES + 1)),
    ],
)
def test_sizes_beyond_the_limits_are_refused_and_nothing_changes(open_store: OpenStore, key: StoredKey) -> None:
    store = open_store()
    add(store, FIRST)
    with pytest.raises(ConfigError, match="must have 1 to"):
        add(store, key)
    assert load(store) == (FIRST,)


def test_a_revision_is_another_one_after_an_addition(open_store: OpenStore) -> None:
    store, other = open_store(), open_store()
    before = store.run(store.store.revision())
    assert store.run(store.store.revision()) == before
    add(other, FIRST)
    assert store.run(store.store.revision()) != before


def test_blob_is_never_printed() -> None:
    assert "first" not in repr(FIRST)


def keep(store: Driven, utc: str) -> None:
    store.run(store.store.keep(utc, Before.RESEAL))


def kept(store: Driven) -> tuple[StoredKey, ...] | None:
    found = store.run(store.store.kept(Before.RESEAL))
    return None if found is None else found.keys


def exchange(store: Driven, blobs: dict[StoredKey, bytes]) -> frozenset[StoredKey]:
    return store.run(store.store.exchange(blobs))


def test_nothing_is_kept_at_first(open_store: OpenStore) -> None:
    assert kept(open_store()) is None
    add(open_store(), FIRST)
    assert kept(open_store()) is None


def test_what_is_kept_stays_as_it_was(open_store: OpenStore) -> None:
    store = open_store()
    add(store, SECOND)
    add(store, FIRST)
    keep(store, "20260101T000000Z")
    exchange(store, {FIRST: b"new"})
    assert kept(store) == kept(open_store()) == (SECOND, FIRST)
    assert load(open_store()) == (SECOND, StoredKey(FIRST.pkh, b"new"))


def test_what_was_kept_last_is_found(open_store: OpenStore) -> None:
    store = open_store()
    for second, key in enumerate((FIRST, SECOND)):
        add(store, key)
        keep(store, f"20260101T00000{second}Z")
    assert kept(open_store()) == (FIRST, SECOND)


def test_what_is_kept_before_an_undo_is_a_series_of_its_own(open_store: OpenStore) -> None:
    store = open_store()
    add(store, FIRST)
    keep(store, "20260101T000000Z")
    add(store, SECOND)
    store.run(store.store.keep("20260101T000000Z", Before.UNDO))
    assert kept(open_store()) == (FIRST,)
    other = store.run(store.store.kept(Before.UNDO))
    assert other is not None
    assert other.keys == (FIRST, SECOND)


def test_nothing_that_is_kept_is_kept_over(open_store: OpenStore) -> None:
    store = open_store()
    add(store, FIRST)
    keep(store, "20260101T000000Z")
    add(store, SECOND)
    with pytest.raises(StoreUnavailable, match="there already: try again"):
        keep(open_store(), "20260101T000000Z")
    assert kept(open_store()) == (FIRST,)


def test_blobs_are_exchanged_in_their_places(open_store: OpenStore) -> None:
    store = open_store()
    add(store, FIRST, SECOND)
    assert exchange(store, {SECOND: b"2", FIRST: b"1"}) == {FIRST, SECOND}
    assert load(open_store()) == (StoredKey(FIRST.pkh, b"1"), StoredKey(SECOND.pkh, b"2"))


def test_what_was_changed_meanwhile_is_not_exchanged(open_store: OpenStore) -> None:
    store = open_store()
    add(store, FIRST, SECOND)
    theirs = StoredKey(FIRST.pkh, b"theirs")
    replace(open_store(), theirs, FIRST.blob)
    unknown = StoredKey("tz1unknown", b"blob")
    assert exchange(store, {FIRST: b"1", SECOND: b"2", unknown: b"3"}) == {SECOND}
    assert exchange(store, {FIRST: b"1"}) == exchange(store, {}) == frozenset()
    assert load(open_store()) == (theirs, StoredKey(SECOND.pkh, b"2"))


def test_of_two_who_exchange_one_blob_one_does(open_store: OpenStore) -> None:
    first, stores = open_store(), [open_store().store for _ in range(6)]
    add(first, FIRST)

    async def exchange_all() -> list[frozenset[StoredKey]]:
        return await asyncio.gather(*(each.exchange({FIRST: b"new %d" % number}) for number, each in enumerate(stores)))

    outcomes = first.run(exchange_all())
    assert sorted(map(len, outcomes)) == [0, 0, 0, 0, 0, 1]
    (number,) = (number for number, exchanged in enumerate(outcomes) if exchanged)
    assert load(open_store()) == (StoredKey(FIRST.pkh, b"new %d" % number),)


def test_a_blob_beyond_the_limits_is_not_exchanged(open_store: OpenStore) -> None:
    store = open_store()
    add(store, FIRST, SECOND)
    for blob in (b"", bytes(MAX_BLOB_BYTES + 1)):
        with pytest.raises(ConfigError, match="must have 1 to"):
            exchange(store, {FIRST: b"1", SECOND: blob})
    assert load(open_store()) == (FIRST, SECOND)
