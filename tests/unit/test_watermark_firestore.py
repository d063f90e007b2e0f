"""What the watermark store in Firestore does that other stores do not."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.errors import ConfigError, StoreUnavailable, WatermarkRejected
from host_backend.google import firestore as calls
from host_backend.watermark.firestore import transactions
from host_backend.watermark.firestore.place import REMEMBERED_NAME
from host_backend.watermark.firestore.store import FirestoreWatermarkStore, open_marks
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import FOLDER, write_signatory_marks
from tests.doubles.google.clients import connected, marks_in, signatory_marks
from tests.doubles.google.firestore import Fault, FirestoreDouble, running_firestore, these_faults
from tests.doubles.watermarks import KEY, LATER, OTHER, A, B, created, everything_in, opened, some_chain

Scenario = Callable[[FirestoreWatermarkStore], Awaitable[None]]
PLACE = "p/(default)/watermark"
PREFIX = f"watermark/{OTHER.chain_id}"


@pytest.fixture
def double() -> Iterator[FirestoreDouble]:
    with running_firestore() as double:
        yield double


@pytest.fixture
def folder(double: FirestoreDouble, tmp_path: Path) -> Path:
    """A folder that has made its store."""
    marks_in(double, tmp_path / "host").create()
    return tmp_path / "host"


def use(double: FirestoreDouble, folder: Path, scenario: Scenario) -> None:
    async def run() -> None:
        async with connected(double.address) as database, open_marks(folder, database) as store:
            await scenario(store)

    asyncio.run(run())


async def nothing(_: FirestoreWatermarkStore) -> None:
    """Open and close."""


async def refused(store: FirestoreWatermarkStore, key: MarkKey, asked: Mark) -> None:
    with pytest.raises(WatermarkRejected, match=r"^watermark validation failed"):
        await store.advance(key, asked)


async def unavailable(store: FirestoreWatermarkStore, key: MarkKey, asked: Mark, text: str) -> None:
    with pytest.raises(StoreUnavailable, match=text):
        await store.advance(key, asked)
    assert store.problem is not None


def signatory_signed(double: FirestoreDouble, kind: str, level: int, round_: int = 0) -> None:
    """Signatory's transaction writes the document whole."""
    double.write(f"{PREFIX}/{kind}/{OTHER.pkh}", request=kind, lvl=level, round=round_, digest=bytes(32))


# With Signatory


def test_documents_are_as_signatory_has_them(double: FirestoreDouble, folder: Path) -> None:
    async def scenario(store: FirestoreWatermarkStore) -> None:
        await store.advance(OTHER, A)

    use(double, folder, scenario)
    for kind in ("attestation", "attestation_with_dal"):
        fields = double.names()[f"{PREFIX}/{kind}/{OTHER.pkh}"].fields
        kinds = {name: value.WhichOneof("value_type") for name, value in fields.items()}
        assert kinds == {
            "request": "string_value",
            "lvl": "integer_value",
            "round": "integer_value",
            "message_digest": "bytes_value",
        }
        assert (fields["request"].string_value, fields["lvl"].integer_value) == (kind, A.level)


@pytest.mark.parametrize("kind", ["attestation", "attestation_with_dal", "endorsement"])
def test_what_signatory_signed_is_never_signed_again(double: FirestoreDouble, folder: Path, kind: str) -> None:
    signatory_signed(double, kind, 10, 2)

    async def scenario(store: FirestoreWatermarkStore) -> None:
        # Its digest is not gone by: a message at its place has no repeat.
        for mark in (A, B, Mark(10, 1, bytes(32)), Mark(9, 0, bytes(32))):
            await refused(store, OTHER, mark)
        await store.advance(OTHER, LATER)

    use(double, folder, scenario)
    assert signatory_marks(double)[OTHER] == LATER if kind != "endorsement" else True
    assert double.names()[f"{PREFIX}/{kind}/{OTHER.pkh}"].fields["digest"].bytes_value == bytes(32)


def test_signatory_goes_on_beside_a_host(double: FirestoreDouble, folder: Path) -> None:
    async def scenario(store: FirestoreWatermarkStore) -> None:
        await store.advance(OTHER, A)
        signatory_signed(double, "attestation", 10, 3)
        await refused(store, OTHER, A)
        await refused(store, OTHER, Mark(10, 3, bytes(32)))
        assert await store.advance(OTHER, LATER) is Verdict.ADVANCE
        assert await store.advance(OTHER, LATER) is Verdict.REPEAT

    use(double, folder, scenario)


def test_a_new_store_has_every_mark_of_signatory_under_all_its_names(double: FirestoreDouble, tmp_path: Path) -> None:
    signatory_signed(double, "attestation", 10)
    signatory_signed(double, "endorsement", 30)
    signatory_signed(double, "attestation_with_dal", 20)
    write_signatory_marks(tmp_path, {KEY: LATER})
    admin = marks_in(double, tmp_path)
    admin.create()
    for path in (f"{PREFIX}/endorsement/{OTHER.pkh}",):
        double.delete(path)
    assert signatory_marks(double) == {KEY: LATER, OTHER: Mark(30, 0, None)} == admin.read().marks


# Several hosts


def test_chains_of_a_key_are_counted_over_all_hosts(double: FirestoreDouble, folder: Path, tmp_path: Path) -> None:
    (store_id,) = store_ids(double)
    marks_in(double, tmp_path / "other").accept(store_id)
    keys = [MarkKey(some_chain(number), KEY.pkh, Right.BLOCK) for number in range(17)]

    async def run() -> None:
        async with (
            connected(double.address) as one,
            connected(double.address) as two,
            open_marks(folder, one) as first,
            open_marks(tmp_path / "other", two) as second,
        ):
            for number, key in enumerate(keys[:16]):
                await (first, second)[number % 2].advance(key, A)
            for store in (first, second):
                await refused(store, keys[16], A)
                await store.advance(keys[0]._replace(right=Right.ATTESTATION), A)

    asyncio.run(run())


def store_ids(double: FirestoreDouble) -> list[str]:
    return [
        stored.fields["id"].string_value for path, stored in double.names().items() if path == "watermark/enclave-host"
    ]


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.TIMED_OUT_AFTER])
def test_a_mark_whose_answer_was_lost_is_allowed_and_no_other(
    double: FirestoreDouble, folder: Path, fault: Fault
) -> None:
    async def scenario(store: FirestoreWatermarkStore) -> None:
        double.faults = these_faults("Commit", fault)
        await store.advance(KEY, A)
        await refused(store, KEY, B)
        assert await store.advance(KEY, A) is Verdict.REPEAT
        assert store.problem is None

    use(double, folder, scenario)


@pytest.mark.parametrize("method", ["BeginTransaction", "BatchGetDocuments", "Commit"])
@pytest.mark.parametrize("fault", [Fault.ABORTED, Fault.UNAVAILABLE, Fault.TIMED_OUT])
def test_what_was_not_done_is_tried_again(double: FirestoreDouble, folder: Path, method: str, fault: Fault) -> None:
    async def scenario(store: FirestoreWatermarkStore) -> None:
        double.faults = these_faults(method, fault, fault)
        assert await store.advance(KEY, A) is Verdict.ADVANCE

    use(double, folder, scenario)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault.ABORTED, "not done within .* others are writing the same documents"),
        (Fault.UNAVAILABLE, "not done within .* could not be read"),
        (Fault.HANGS, "not done within .* s: "),
    ],
)
def test_contention_and_silence_without_end_are_unavailable_never_refused(
    double: FirestoreDouble, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, text: str
) -> None:
    monkeypatch.setattr(calls, "CALL_S", 0.1)
    run = transactions.Transactions.run
    monkeypatch.setattr(
        transactions.Transactions, "run", lambda self, paths, decide, within_s=0.3: run(self, paths, decide, 0.3)
    )

    async def scenario(store: FirestoreWatermarkStore) -> None:
        double.faults = lambda method: None if method == "Rollback" else fault
        await unavailable(store, KEY, A, text)
        double.faults = lambda _method: None
        assert await store.advance(KEY, A) in Verdict
        assert store.problem is None

    use(double, folder, scenario)


def test_who_may_not_is_told_what_to_grant_and_is_not_tried_again(double: FirestoreDouble, folder: Path) -> None:
    async def scenario(store: FirestoreWatermarkStore) -> None:
        double.calls.clear()
        double.faults = lambda _method: Fault.DENIED
        await unavailable(store, KEY, A, r"grant this host's identity roles/datastore\.user in project p")
        assert sum(double.calls.values()) == 1

    use(double, folder, scenario)


def test_a_repeat_writes_nothing(double: FirestoreDouble, folder: Path) -> None:
    async def scenario(store: FirestoreWatermarkStore) -> None:
        await store.advance(KEY, A)
        double.calls.clear()
        await asyncio.gather(*(store.advance(KEY, A) for _ in range(10)))
        assert double.calls["Commit"] == 0
        assert double.calls["BeginTransaction"] <= 2

    use(double, folder, scenario)


# Absence is not permission


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda double: double.delete("watermark/enclave-host"),
            r"no watermark store in Firestore p/.*; this host had one in",
        ),
        (
            lambda double: double.write("watermark/enclave-host", id="x", layout=1, place=PLACE),
            "another one than at the start",
        ),
        (lambda double: double.write("watermark/enclave-host", id="x", layout=1), "is damaged"),
        (
            lambda double: double.write("watermark/enclave-host", id="x", layout=0, place=PLACE),
            "was not completed",
        ),
        (lambda double: double.write("watermark/enclave-host", id="x", layout=2, place=PLACE), "use a later version"),
    ],
)
def test_a_store_that_goes_away_allows_nothing_any_more(
    double: FirestoreDouble, folder: Path, spoil: Callable[[FirestoreDouble], None], text: str
) -> None:
    async def scenario(store: FirestoreWatermarkStore) -> None:
        await store.advance(KEY, A)
        spoil(double)
        for key, mark in ((KEY, A), (KEY, LATER), (OTHER, A)):
            await unavailable(store, key, mark, text)

    use(double, folder, scenario)


def no_start(double: FirestoreDouble, folder: Path, text: str) -> None:
    """A start is refused, says why, and leaves no trace."""
    before = everything_in(folder), double.names()
    with pytest.raises(ConfigError, match=text):
        use(double, folder, nothing)
    assert (everything_in(folder), double.names()) == before


def test_nothing_starts_on_an_empty_collection(double: FirestoreDouble, tmp_path: Path) -> None:
    no_start(double, tmp_path, "no watermark store in .*: check project, database and collection; if its keys")


def test_nothing_starts_where_its_store_is_not_any_more(double: FirestoreDouble, folder: Path) -> None:
    double.delete("watermark/enclave-host")
    no_start(double, folder, "this host had one in Firestore p/.*watermark; or rebuild the marks with")
    # Nor is another one made without a word.
    with pytest.raises(ConfigError, match="this host had one"):
        marks_in(double, folder).create()
    assert marks_in(double, folder).rebuild(Rebuilt([KEY.pkh], [KEY.chain_id], 1000), "") == 3
    use(double, folder, nothing)


def test_a_rebuild_puts_aside_what_of_signatorys_files_stops_the_start(double: FirestoreDouble, folder: Path) -> None:
    file = folder / FOLDER / f"{KEY.chain_id}.json"
    file.write_text("no JSON")
    no_start(double, folder, "watermark rebuild --above-level N`, which puts it aside")
    marks_in(double, folder).rebuild(Rebuilt([KEY.pkh], [KEY.chain_id], 1000), ".damaged")
    assert file.with_name(f"{file.name}.damaged").read_text() == "no JSON"
    use(double, folder, nothing)


def test_nothing_starts_on_a_store_that_was_not_accepted(double: FirestoreDouble, folder: Path, tmp_path: Path) -> None:
    (store_id,) = store_ids(double)
    new = tmp_path / "new"
    new.mkdir()
    no_start(
        double, new, f"is {store_id}, and none was accepted here: .* `enclave-host serve --accept-store {store_id}`"
    )
    with pytest.raises(ConfigError, match=f"is {store_id}, not 'other'"):
        marks_in(double, new).accept("other")
    with pytest.raises(ConfigError, match="--accept-store needs the id of the store"):
        marks_in(double, new).accept("")
    marks_in(double, new).accept(store_id)
    use(double, new, nothing)
    double.write("watermark/enclave-host", id="other", layout=1, place=PLACE)
    no_start(double, new, r"is other, and this host had another one \(Firestore p/")


def test_a_store_that_was_not_made_to_its_end_is_made_again(double: FirestoreDouble, tmp_path: Path) -> None:
    write_signatory_marks(tmp_path, {KEY: LATER})
    admin = marks_in(double, tmp_path)
    # The second commit moves the marks: none of its tries is done.
    left = iter([None])
    double.faults = lambda method: next(left, Fault.DENIED) if method == "Commit" else None
    with pytest.raises(StoreUnavailable):
        admin.create()
    double.faults = lambda _method: None
    no_start(double, tmp_path, "was not completed: repeat `enclave-host watermark init`")
    admin.create()
    assert admin.read().marks == {KEY: LATER}
    use(double, tmp_path, nothing)


def test_nothing_starts_beside_the_marks_of_another_driver(double: FirestoreDouble, folder: Path) -> None:
    other = folder.parent / "file"
    created_in(other)
    (other / REMEMBERED_NAME).write_bytes((folder / REMEMBERED_NAME).read_bytes())
    no_start(double, other, "has marks, and watermark.driver is gcp: .*`enclave-host watermark migrate`")
    SignatoryFolder(folder).note_forgotten()
    no_start(double, folder, "`watermark.driver: mem`, so what it signed is not known")


def created_in(folder: Path) -> None:
    folder.mkdir()
    created(folder)


def test_no_other_driver_starts_in_a_folder_whose_marks_are_in_firestore(double: FirestoreDouble, folder: Path) -> None:
    with pytest.raises(ConfigError, match="kept its marks in Firestore: write `driver: gcp`"):
        asyncio.run(opened(folder))


def test_what_the_folder_remembers_is_ours_or_nothing_starts(double: FirestoreDouble, folder: Path) -> None:
    for content in ("", "{}", "[1]", "x"):
        (folder / REMEMBERED_NAME).write_text(content)
        no_start(double, folder, "is not what this host wrote there: accept the store again")


def test_higher_marks_in_signatory_s_files_are_taken_over_at_every_start(double: FirestoreDouble, folder: Path) -> None:
    marks_in(double, folder).adopt({KEY: A})
    write_signatory_marks(folder, {KEY: LATER, OTHER: A})
    use(double, folder, nothing)
    assert signatory_marks(double) == {KEY: LATER, OTHER: A}


# Damage


@pytest.mark.parametrize("fields", [{}, {"lvl": "x", "round": 0}, {"lvl": 10}, {"lvl": -1, "round": 0}])
def test_a_document_without_a_mark_costs_one_right(
    double: FirestoreDouble, folder: Path, fields: dict[str, object]
) -> None:
    marks_in(double, folder).adopt({OTHER: A, KEY: A})
    double.write(f"{PREFIX}/attestation/{OTHER.pkh}", **fields)

    async def scenario(store: FirestoreWatermarkStore) -> None:
        for mark in (A, LATER):
            with pytest.raises(StoreUnavailable, match=r"is damaged, and nothing is signed for it: .* above level 10"):
                await store.advance(OTHER, mark)
        assert set(store.refused) == {OTHER}
        assert store.problem is None
        assert await store.advance(KEY, A) is Verdict.REPEAT

    use(double, folder, scenario)
    admin = marks_in(double, folder)
    assert admin.read().refused == {OTHER: A}
    with pytest.raises(ConfigError, match="damaged marks"):
        admin.export()
    admin.raise_mark(OTHER, Mark(20, 0, None))
    assert admin.read().marks[OTHER] == Mark(20, 0, None)
    assert signatory_marks(double)[OTHER] == Mark(20, 0, None)


def test_an_older_file_of_signatory_s_would_bring_a_mark_back(double: FirestoreDouble, folder: Path) -> None:
    admin = marks_in(double, folder)
    admin.adopt({KEY: LATER})
    write_signatory_marks(folder, {KEY: LATER})
    with pytest.raises(ConfigError, match="every start would bring it back: move them away first"):
        admin.reset_mark(KEY, A)
