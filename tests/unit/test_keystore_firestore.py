"""What the key store in Firestore does that other key stores do not."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.keystore import firestore
from host_backend.keystore.base import Before, StoredKey
from host_backend.keystore.firestore import FirestoreKeyStore
from tests.doubles.google.clients import connected
from tests.doubles.google.firestore import Fault, FirestoreDouble, running_firestore, these_faults

FIRST = StoredKey("tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", b"\x00first blob\xff")
SECOND = StoredKey("tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME", b"second blob")
NEW = StoredKey(FIRST.pkh, b"new blob")

Scenario = Callable[[FirestoreKeyStore], Awaitable[None]]


@pytest.fixture
def double() -> Iterator[FirestoreDouble]:
    with running_firestore() as double:
        yield double


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firestore, "_PAUSE_S", 0.0)


def use(double: FirestoreDouble, scenario: Scenario) -> None:
    async def run() -> None:
        store = FirestoreKeyStore(connected(double.address, "encrypted_keys"))
        try:
            await scenario(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def test_a_document_is_as_signatory_has_it(double: FirestoreDouble) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add([FIRST])

    use(double, scenario)
    (path,) = double.names()
    assert path == f"encrypted_keys/{FIRST.pkh}"
    fields = double.names()[path].fields
    assert {name: value.WhichOneof("value_type") for name, value in fields.items()} == {
        "pkh": "string_value",
        "value": "bytes_value",
    }
    assert fields["value"].bytes_value == FIRST.blob


def test_what_signatory_stored_is_read_whatever_else_it_says(double: FirestoreDouble) -> None:
    double.write(f"encrypted_keys/{FIRST.pkh}", pkh=FIRST.pkh, value=FIRST.blob, more=1)

    async def scenario(store: FirestoreKeyStore) -> None:
        assert await store.load() == (FIRST,)
        await store.replace(NEW, [FIRST.blob])

    use(double, scenario)
    assert double.names()[f"encrypted_keys/{FIRST.pkh}"].fields["more"].integer_value == 1


def test_fields_of_others_are_not_read_however_large(double: FirestoreDouble) -> None:
    """Five documents: more than gRPC takes in one answer."""
    for number in range(5):
        double.write(f"encrypted_keys/tz1{number}", pkh=f"tz1{number}", value=b"blob", note="n" * 1_000_000)

    async def scenario(store: FirestoreKeyStore) -> None:
        assert [key.pkh for key in await store.load()] == [f"tz1{number}" for number in range(5)]
        with pytest.raises(StoreUnavailable, match=r"an answer is over its limit: .*larger than max"):
            _ = [document async for document in store._database.list("encrypted_keys")]

    use(double, scenario)


def test_a_document_that_only_has_others_below_it_is_no_key(double: FirestoreDouble) -> None:
    double.write(f"encrypted_keys/{FIRST.pkh}", pkh=FIRST.pkh, value=FIRST.blob)
    double.write("encrypted_keys/more/below/one", x=1)

    async def scenario(store: FirestoreKeyStore) -> None:
        assert await store.load() == (FIRST,)

    use(double, scenario)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"value": b"x"}, "pkh must be a text"),
        ({"pkh": FIRST.pkh}, "value must be bytes"),
        ({"pkh": FIRST.pkh, "value": "x"}, "value must be bytes"),
        ({"pkh": SECOND.pkh, "value": b"x"}, "pkh must be the document's own id"),
        ({"pkh": FIRST.pkh, "value": b""}, "value must have 1 to 65536 bytes"),
    ],
)
def test_what_is_no_key_is_named_and_costs_no_other(
    double: FirestoreDouble, fields: dict[str, object], problem: str
) -> None:
    double.write(f"encrypted_keys/{FIRST.pkh}", **fields)
    double.write(f"encrypted_keys/{SECOND.pkh}", pkh=SECOND.pkh, value=SECOND.blob)

    async def scenario(store: FirestoreKeyStore) -> None:
        assert await store.load() == (SECOND,)
        (name,) = store.damaged
        assert name == FIRST.pkh
        assert store.damaged[name].endswith(f"document {FIRST.pkh}: {problem}: correct it or delete it")
        double.delete(f"encrypted_keys/{FIRST.pkh}")
        await store.load()
        assert not store.damaged

    use(double, scenario)


def test_of_many_documents_that_are_no_keys_some_are_named(double: FirestoreDouble) -> None:
    for number in range(firestore.MAX_NAMED + 1):
        double.write(f"encrypted_keys/note{number}", text="no key")

    async def scenario(store: FirestoreKeyStore) -> None:
        assert await store.load() == ()
        assert len(store.damaged) == firestore.MAX_NAMED

    use(double, scenario)


def test_a_hash_that_would_lead_elsewhere_is_refused(double: FirestoreDouble) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        for pkh in ("a/b/c", "..", "tz1é", "__x__"):
            with pytest.raises(ConfigError, match="letters and digits"):
                await store.add([StoredKey(pkh, b"blob")])

    use(double, scenario)
    assert double.names() == {}


def test_all_pages_are_read(double: FirestoreDouble) -> None:
    keys = [StoredKey(f"tz1{number:04}", b"blob %d" % number) for number in range(250)]

    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add(keys)
        double.calls.clear()
        assert await store.load() == tuple(keys)
        assert double.calls == {"ListDocuments": 3}

    use(double, scenario)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.TIMED_OUT_AFTER, Fault.LATE])
def test_a_key_whose_answer_was_lost_is_new_and_stored_once(double: FirestoreDouble, fault: Fault) -> None:
    double.faults = these_faults("Commit", fault)

    async def scenario(store: FirestoreKeyStore) -> None:
        assert await store.add([FIRST, SECOND]) == {FIRST.pkh, SECOND.pkh}
        assert set(await store.load()) == {FIRST, SECOND}

    use(double, scenario)


@pytest.mark.parametrize("fault", [Fault.ABORTED, Fault.UNAVAILABLE, Fault.TIMED_OUT])
def test_a_key_that_was_not_stored_is_tried_again(double: FirestoreDouble, fault: Fault) -> None:
    double.faults = these_faults("Commit", fault, fault)

    async def scenario(store: FirestoreKeyStore) -> None:
        assert await store.add([FIRST]) == {FIRST.pkh}

    use(double, scenario)
    assert double.calls["Commit"] == 3


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.LATE, Fault.UNAVAILABLE])
def test_a_replacement_whose_answer_was_lost_is_done_once(double: FirestoreDouble, fault: Fault) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add([FIRST])
        double.faults = these_faults("Commit", fault)
        await store.replace(NEW, [FIRST.blob])
        assert await store.load() == (NEW,)

    use(double, scenario)
    aside = [path for path in double.names() if path.startswith("encrypted_keys_replaced/")]
    assert [double.names()[path].fields["value"].bytes_value for path in aside] == [FIRST.blob]


def test_a_store_that_does_not_come_back_is_unavailable_and_says_so(double: FirestoreDouble) -> None:
    double.faults = lambda _method: Fault.UNAVAILABLE

    async def scenario(store: FirestoreKeyStore) -> None:
        with pytest.raises(StoreUnavailable, match=r"not known to be stored: .* could not be read"):
            await store.add([FIRST])

    use(double, scenario)


def test_who_may_not_is_told_which_role_to_grant_and_is_not_tried_again(double: FirestoreDouble) -> None:
    double.faults = lambda _method: Fault.DENIED

    async def scenario(store: FirestoreKeyStore) -> None:
        with pytest.raises(StoreUnavailable, match=r"grant this host's identity roles/datastore\.user in project p"):
            await store.add([FIRST])

    use(double, scenario)
    assert sum(double.calls.values()) == 1


def test_the_copy_that_was_made_last_is_the_newest_whatever_the_clocks_of_hosts_say(double: FirestoreDouble) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add([FIRST])
        await store.keep("20300101T000000Z", Before.RESEAL)
        await store.replace(NEW, [FIRST.blob])
        await store.keep("20260101T000000Z", Before.RESEAL)
        kept = await store.kept(Before.RESEAL)
        assert kept is not None
        assert kept.keys == (NEW,)

    use(double, scenario)


def test_of_the_copies_only_the_newest_is_read_with_its_blobs(
    double: FirestoreDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        await store.add([FIRST, SECOND])
        for second in range(3):
            await store.keep(f"20260101T00000{second}Z", Before.RESEAL)
        # All blobs of one copy, and less than those of two.
        monkeypatch.setattr(firestore, "MAX_LOADED_BYTES", len(FIRST.blob + SECOND.blob))
        kept = await store.kept(Before.RESEAL)
        assert kept is not None
        assert {*kept.keys} == {FIRST, SECOND}
        # Three copies, and the document of each that says that it is whole.
        monkeypatch.setattr(firestore, "MAX_KEPT", 9)
        assert await store.kept(Before.RESEAL) == kept
        monkeypatch.setattr(firestore, "MAX_KEPT", 8)
        with pytest.raises(ConfigError, match="has more than 8 documents: remove old copies"):
            await store.kept(Before.RESEAL)

    use(double, scenario)


def test_ten_minutes_are_a_revision_of_their_own(double: FirestoreDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(store: FirestoreKeyStore) -> None:
        before = await store.revision()
        assert await store.revision() == before
        monkeypatch.setattr(store, "_opened_at", store._opened_at - firestore.READ_ALL_S)
        assert await store.revision() != before

    use(double, scenario)
    assert double.calls == {"RunAggregationQuery": 3}
