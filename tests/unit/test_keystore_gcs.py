"""What the key store in Cloud Storage does that other key stores do not."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from host_backend.errors import ConfigError, StateConflict, StoreUnavailable
from host_backend.google import storage
from host_backend.google.outcomes import Conflict
from host_backend.keystore import gcs
from host_backend.keystore.base import Before, StoredKey
from host_backend.keystore.gcs import BucketKeyStore
from tests.doubles.google.buckets import bucket_at
from tests.doubles.google.storage import Fault, Faults, StorageDouble, running_storage, these_faults

FIRST = StoredKey("tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", b"\x00first blob\r\n\xff")
SECOND = StoredKey("tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME", b"second blob")
THIRD = StoredKey("tz2Blp", b"third blob")
NEW = StoredKey(FIRST.pkh, b"new blob")
ROOT = "enclave-host/"
KEYS = f"{ROOT}keys/"

Scenario = Callable[[BucketKeyStore], Awaitable[None]]


@pytest.fixture
def double() -> Iterator[StorageDouble]:
    with running_storage() as double:
        yield double


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_PAUSE_S", 0.0)


def use(double: StorageDouble, scenario: Scenario, bucket: str = "blobs") -> None:
    async def run() -> None:
        store = BucketKeyStore(bucket_at(double.address, ROOT, bucket))
        try:
            await scenario(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def test_a_blob_is_an_object_under_its_hash(double: StorageDouble) -> None:
    async def scenario(store: BucketKeyStore) -> None:
        await store.add([FIRST])

    use(double, scenario)
    assert double.below("") == {f"{KEYS}{FIRST.pkh}": FIRST.blob}


def test_an_object_that_people_copied_there_is_a_key(double: StorageDouble) -> None:
    double.put(f"{KEYS}{FIRST.pkh}", FIRST.blob, goog_reserved="x")
    double.put(KEYS, b"")

    async def scenario(store: BucketKeyStore) -> None:
        assert await store.load() == (FIRST,)
        assert not store.damaged
        assert await store.add([FIRST]) == frozenset()
        await store.replace(NEW, [FIRST.blob])
        assert await store.load() == (NEW,)

    use(double, scenario)
    assert [*double.below(f"{ROOT}replaced/").values()] == [FIRST.blob]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("tz1empty", b"", "it must have 1 to 65536 bytes"),
        ("tz1large", bytes(65537), "it must have 1 to 65536 bytes"),
        ("../../etc/passwd", b"x", "its name must have 1 to 64 letters and digits"),
        ("tz1/tz2", b"x", "its name must have 1 to 64 letters and digits"),
        ("tz1é", b"x", "its name must have 1 to 64 letters and digits"),
        ("tz1\nkey ready", b"x", "its name must have 1 to 64 letters and digits"),
        ("tz1?alt=media#x%2F", b"x", "its name must have 1 to 64 letters and digits"),
        ("t" * 65, b"x", "its name must have 1 to 64 letters and digits"),
    ],
)
def test_what_is_no_key_is_named_and_costs_no_other(
    double: StorageDouble, name: str, data: bytes, problem: str
) -> None:
    double.put(f"{KEYS}{name}", data)
    double.put(f"{KEYS}{SECOND.pkh}", SECOND.blob)

    async def scenario(store: BucketKeyStore) -> None:
        before = await store.revision()
        assert await store.load() == (SECOND,)
        ((named, reason),) = store.damaged.items()
        assert named == name[:64].encode("unicode_escape").decode()
        assert reason.endswith(f": {problem}: restore or delete it")
        assert (named + reason).isprintable()
        del double.objects[f"{KEYS}{name}"]
        assert await store.revision() != before
        await store.load()
        assert not store.damaged

    use(double, scenario)
    assert double.calls["read"] == 1


def test_of_many_objects_that_are_no_keys_some_are_named(double: StorageDouble) -> None:
    for number in range(gcs.MAX_NAMED + 1):
        double.put(f"{KEYS}no-key-{number}", b"x")

    async def scenario(store: BucketKeyStore) -> None:
        assert await store.load() == ()
        assert len(store.damaged) == gcs.MAX_NAMED

    use(double, scenario)


def test_a_hash_that_would_lead_elsewhere_is_refused(double: StorageDouble) -> None:
    async def scenario(store: BucketKeyStore) -> None:
        for pkh in ("a/b/c", "..", "tz1é", "tz1\n", "tz1?x"):
            for change in (store.add([StoredKey(pkh, b"blob")]), store.replace(StoredKey(pkh, b"blob"), [])):
                with pytest.raises(ConfigError, match="letters and digits"):
                    await change

    use(double, scenario)
    assert double.calls == {}


def test_all_pages_are_read_and_what_has_not_changed_is_read_once(double: StorageDouble) -> None:
    keys = [StoredKey(f"tz1{number:04}", b"blob %d" % number) for number in range(10)]

    async def scenario(store: BucketKeyStore) -> None:
        assert await store.add(keys) == {key.pkh for key in keys}
        double.calls.clear()
        assert await store.load() == tuple(keys)
        # Three objects are a page; the decision about all ten is known.
        assert double.calls == {"list": 4, "read": 10}
        await store.replace(StoredKey("tz10003", b"new"), [b"blob 3"])
        double.calls.clear()
        assert (await store.load())[3] == StoredKey("tz10003", b"new")
        assert double.calls == {"list": 4, "read": 1}

    use(double, scenario)


def test_limits_of_count_and_size(double: StorageDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        double.put(f"{KEYS}tz{number}", b"12345")

    async def scenario(store: BucketKeyStore) -> None:
        monkeypatch.setattr(gcs, "MAX_COPY_BYTES", 100)
        with pytest.raises(ConfigError, match="a copy of all keys has more than 100 bytes"):
            await store.keep("20260101T000000Z", Before.RESEAL)
        double.calls.clear()
        monkeypatch.setattr(gcs, "MAX_LOADED_BYTES", 14)
        with pytest.raises(ConfigError, match="has more than 14 bytes of blobs: use a second vault"):
            await store.load()
        monkeypatch.setattr(storage, "MAX_OBJECTS", 2)
        with pytest.raises(ConfigError, match=r"blobs/enclave-host/keys/ has more than 2 objects: use a second vault"):
            await store.load()

    use(double, scenario)
    assert double.calls["read"] == 0


def after(count: int, fault: Fault) -> Faults:
    """After so many writes, one goes wrong."""
    writes = iter([None] * count + [fault])
    return lambda call, _name: next(writes, None) if call == "write" else None


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.BUSY, Fault.UNAVAILABLE])
@pytest.mark.parametrize("keys", [(FIRST,), (FIRST, SECOND)])
def test_keys_whose_answer_was_lost_are_new_and_stored_once(
    double: StorageDouble, fault: Fault, keys: tuple[StoredKey, ...]
) -> None:
    for number in range(2 * len(keys)):
        double.objects.clear()
        double.faults = after(number, fault)

        async def scenario(store: BucketKeyStore) -> None:
            assert await store.add(keys) == {key.pkh for key in keys}
            assert set(await store.load()) == set(keys)

        use(double, scenario)
        assert double.below(KEYS) == {key.pkh: key.blob for key in keys}


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.TIMED_OUT_AFTER, Fault.UNAVAILABLE])
def test_a_replacement_whose_answer_was_lost_is_done_once(double: StorageDouble, fault: Fault) -> None:
    async def scenario(store: BucketKeyStore) -> None:
        await store.add([FIRST])
        # The first write keeps the old blob aside, the second takes its place.
        double.faults = after(0, fault)
        await store.replace(NEW, [FIRST.blob])
        double.faults = after(1, fault)
        await store.replace(FIRST, [NEW.blob])
        await store.replace(NEW, [FIRST.blob])
        assert await store.load() == (NEW,)
        double.faults = these_faults("write", fault)
        assert await store.exchange({NEW: b"newer"}) == {NEW}
        double.faults = these_faults("write", fault)
        await store.keep("20260101T000000Z", Before.RESEAL)

    use(double, scenario)
    assert {*double.below(f"{ROOT}replaced/").values()} == {FIRST.blob, NEW.blob}
    assert [*double.below(KEYS).values()] == [b"newer"]


def test_a_silent_service_is_unavailable(double: StorageDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "CALL_S", 0.05)
    double.faults = these_faults("list", *[Fault.SILENT] * gcs.TRIES)

    async def scenario(store: BucketKeyStore) -> None:
        with pytest.raises(StoreUnavailable, match=r"could not be listed: .*timed out.*retry later; 8 attempts"):
            await store.load()
        monkeypatch.setattr(storage, "CALL_S", 60.0)
        assert await store.load() == ()

    use(double, scenario)


@pytest.mark.parametrize("fault", [Fault.DENIED, Fault.UNAUTHENTICATED])
def test_a_refusal_names_the_role_and_is_not_tried_again(double: StorageDouble, fault: Fault) -> None:
    double.faults = lambda _call, _name: fault

    async def scenario(store: BucketKeyStore) -> None:
        expected = (
            "grant this host's identity roles/storage.objectUser on bucket blobs" if fault is Fault.DENIED else "token"
        )
        with pytest.raises(StoreUnavailable, match=expected):
            await store.add([FIRST])

    use(double, scenario)
    assert sum(double.calls.values()) == 1


def test_a_bucket_that_is_not_there_is_no_empty_store(double: StorageDouble) -> None:
    async def scenario(store: BucketKeyStore) -> None:
        for work in (store.load, store.revision, lambda: store.add([FIRST]), lambda: store.kept(Before.UNDO)):
            with pytest.raises(StoreUnavailable, match=r"bucket does not exist.*: correct `bucket`, or make it"):
                await work()

    use(double, scenario, "other")


@pytest.mark.parametrize("fault", [Fault.GARBLED, Fault.SHORT])
def test_what_was_altered_on_the_way_is_read_again(double: StorageDouble, fault: Fault) -> None:
    double.put(f"{KEYS}{FIRST.pkh}", FIRST.blob)
    double.faults = these_faults("read", fault, fault)

    async def scenario(store: BucketKeyStore) -> None:
        assert await store.load() == (FIRST,)

    use(double, scenario)


def test_a_wrong_checksum_costs_one_key(double: StorageDouble) -> None:
    double.put(f"{KEYS}{FIRST.pkh}", FIRST.blob, crc="AAAAAA==")
    double.put(f"{KEYS}{SECOND.pkh}", SECOND.blob)

    async def scenario(store: BucketKeyStore) -> None:
        assert await store.load() == (SECOND,)
        assert store.damaged[FIRST.pkh].endswith("checksum of the object: restore an earlier version, or a backup")
        with pytest.raises(StateConflict, match="checksum"):
            await store.replace(NEW, [FIRST.blob])

    use(double, scenario)


def test_reads_and_deletes_are_for_the_generation_that_was_found(double: StorageDouble) -> None:
    """The emulator ignores these conditions."""
    double.put("enclave-host/x", b"old")

    async def run() -> None:
        bucket = bucket_at(double.address)
        found = await bucket.find("x")
        assert found is not None
        double.put("enclave-host/x", b"new")
        for change in (bucket.read(found), bucket.delete(found), bucket.write("x", b"3", {}, found.generation)):
            with pytest.raises(Conflict):
                await change
        assert double.below(ROOT) == {"x": b"new"}
        found = await bucket.find("x")
        assert found is not None
        assert await bucket.read(found) == b"new"
        await bucket.delete(found)
        for change in (bucket.read(found), bucket.delete(found), bucket.write("x", b"3", {}, found.generation)):
            with pytest.raises(Conflict):
                await change
        assert await bucket.find("x") is None
        await bucket.aclose()

    asyncio.run(run())


def test_a_key_that_changes_while_it_is_read_is_read_as_it_is_then(double: StorageDouble) -> None:
    double.put(f"{KEYS}{FIRST.pkh}", FIRST.blob)
    left = [NEW.blob]

    def change(call: str, name: str) -> None:
        if call == "read" and left:
            double.put(name, left.pop())

    double.faults = change

    async def scenario(store: BucketKeyStore) -> None:
        assert await store.load() == (NEW,)

    use(double, scenario)


def test_of_two_who_add_the_same_keys_together_each_key_is_stored_by_one(double: StorageDouble) -> None:
    pkhs = [f"tz1{number}" for number in range(4)]

    async def run() -> None:
        stores = [BucketKeyStore(bucket_at(double.address)) for _ in range(3)]
        sets = [[StoredKey(pkh, b"by %d" % number) for pkh in pkhs] for number in range(3)]
        added = await asyncio.gather(*(store.add(keys) for store, keys in zip(stores, sets, strict=True)))
        assert sorted(map(len, added)) == [0, 0, 4]
        (winner,) = (keys for keys, new in zip(sets, added, strict=True) if new)
        assert await stores[0].load() == tuple(winner)
        for store in stores:
            await store.aclose()

    asyncio.run(run())
    assert len(double.below(KEYS)) == 4


def test_keys_that_were_not_all_stored_are_none_and_named_after_an_hour(
    double: StorageDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host leaves them that was killed."""
    metadata = {"change": "0123456789abcdef", "together": "yes"}
    double.put(f"{KEYS}{FIRST.pkh}", FIRST.blob, **metadata)
    double.put(f"{KEYS}{SECOND.pkh}", SECOND.blob, **metadata)
    created = datetime(2026, 1, 1, tzinfo=UTC)
    age_s = (datetime.now(UTC) - created) / timedelta(seconds=1)

    async def scenario(store: BucketKeyStore) -> None:
        monkeypatch.setattr(gcs, "UNFINISHED_S", age_s + 3600)
        assert await store.load() == ()
        assert not store.damaged
        before = await store.revision()
        monkeypatch.setattr(gcs, "UNFINISHED_S", age_s - 3600)
        assert await store.load() == ()
        assert store.damaged.keys() == {FIRST.pkh, SECOND.pkh}
        assert "was cut short" in store.damaged[FIRST.pkh]
        assert await store.exchange({FIRST: b"1"}) == frozenset()
        # Who adds one of them has the other abandoned.
        assert await store.add([NEW, THIRD]) == {NEW.pkh, THIRD.pkh}
        assert await store.revision() != before
        assert await store.load() == (NEW, THIRD)
        assert not store.damaged

    use(double, scenario)


def test_a_decision_that_another_makes_is_seen(double: StorageDouble) -> None:
    double.put(f"{KEYS}{FIRST.pkh}", FIRST.blob, change="0123456789abcdef", together="yes")

    async def scenario(store: BucketKeyStore) -> None:
        before = await store.revision()
        double.put(f"{ROOT}together/0123456789abcdef", b"", decision="stored")
        assert await store.revision() != before
        assert await store.load() == (FIRST,)

    use(double, scenario)


def test_keys_that_cannot_all_be_stored_leave_nothing(double: StorageDouble) -> None:
    double.faults = lambda call, name: Fault.DENIED if call == "write" and name.endswith(SECOND.pkh) else None

    async def scenario(store: BucketKeyStore) -> None:
        with pytest.raises(StoreUnavailable, match="grant this host's identity"):
            await store.add([FIRST, SECOND, THIRD])
        assert await store.load() == ()

    use(double, scenario)
    assert double.below(KEYS) == {}


def test_the_copy_that_was_made_last_is_the_newest_and_a_key_file(double: StorageDouble) -> None:
    async def scenario(store: BucketKeyStore) -> None:
        await store.add([FIRST])
        await store.keep("20300101T000000Z", Before.RESEAL)
        await store.replace(NEW, [FIRST.blob])
        await store.keep("20260101T000000Z", Before.RESEAL)
        kept = await store.kept(Before.RESEAL)
        assert kept is not None
        assert kept.keys == (NEW,)
        assert kept.where == "gs://blobs/enclave-host/before-reseal/20260101T000000Z"

    use(double, scenario)
    copy = double.below(f"{ROOT}before-reseal/")["20260101T000000Z"]
    assert [each["public_key_hash"] for each in json.loads(copy)] == [NEW.pkh]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b'[{"public_key_hash": "tz1"}]',
        b'[{"public_key_hash": "tz1", "encrypted_private_key": "*"}]',
        b'[{"public_key_hash": "a/b", "encrypted_private_key": "eA=="}]',
    ],
)
def test_a_copy_that_is_not_well_formed_is_refused(double: StorageDouble, data: bytes) -> None:
    double.put(f"{ROOT}before-undo/20260101T000000Z", data)

    async def scenario(store: BucketKeyStore) -> None:
        with pytest.raises(StateConflict, match=r"gs://blobs/enclave-host/before-undo/20260101T000000Z"):
            await store.kept(Before.UNDO)

    use(double, scenario)
