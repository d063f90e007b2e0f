"""Which store in Firestore is used, made, taken back or refused, in each state that it can be in."""

import asyncio
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.watermark.firestore import contents as calls
from host_backend.watermark.firestore.contents import Contents
from host_backend.watermark.firestore.moving import WholeStore
from host_backend.watermark.firestore.place import BEGUN_NAME
from host_backend.watermark.firestore.states import Making
from host_backend.watermark.firestore.store import open_marks
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, Verdict
from host_backend.watermark.signatory.layouts import write_signatory_marks
from tests.doubles.google.clients import connected, marks_in, signatory_marks
from tests.doubles.google.firestore import Fault, FirestoreDouble, running_firestore, these_faults
from tests.doubles.watermarks import KEY, LATER, OTHER, A, digest, everything_in

STORE = "watermark/enclave-host"
PLACE = "p/(default)/watermark"
REBUILD = "`enclave-host watermark rebuild --above-level N`"
FLOOR = 1000


@pytest.fixture
def double() -> Iterator[FirestoreDouble]:
    with running_firestore() as double:
        yield double


@pytest.fixture
def one(double: FirestoreDouble, tmp_path: Path) -> Path:
    """A host that has made its store, with a mark."""
    folder = tmp_path / "one"
    admin = marks_in(double, folder)
    admin.create()
    admin.adopt({KEY: A})
    return folder


@pytest.fixture
def two(double: FirestoreDouble, one: Path, tmp_path: Path) -> Path:
    """Another host on the same store."""
    assert one.exists()
    marks_in(double, tmp_path / "two").accept(store_id(double))
    return tmp_path / "two"


def store_id(double: FirestoreDouble, path: str = STORE) -> str:
    found: str = double.names()[path].fields["id"].string_value
    return found


def ask(double: FirestoreDouble, folder: Path, mark: Mark, collection: str = "watermark") -> Verdict:
    async def run() -> Verdict:
        async with connected(double.address, collection) as database, open_marks(folder, database) as store:
            return await store.advance(KEY, mark)

    return asyncio.run(run())


def refused(double: FirestoreDouble, folder: Path, act: Callable[[], object], *texts: str) -> None:
    """A refusal says why, proposes nothing that makes marks lower, and has changed nothing."""
    before = everything_in(folder), double.names()
    with pytest.raises(ConfigError) as caught:
        act()
    assert (everything_in(folder), double.names()) == before
    said = str(caught.value)
    assert all(text in said for text in texts), said
    assert "--accept-store" not in said
    assert ("watermark init" in said) == any("watermark init" in text for text in texts)


def every_way_but_rebuild(
    double: FirestoreDouble, folder: Path, *texts: str, collection: str = "watermark", path: str = STORE
) -> None:
    """No start, and no command but `rebuild`, uses a store or puts one in its place."""
    admin = marks_in(double, folder, collection)
    for act in (
        lambda: ask(double, folder, LATER, collection),
        admin.create,
        admin.read,
        admin.describe,
        admin.export,
        admin.retire,
        admin.hand_over,
        admin.require_taking_over,
        lambda: admin.take_over({KEY: A}),
        lambda: admin.accept(store_id(double, path)),
        lambda: admin.adopt({KEY: LATER}),
        lambda: admin.raise_mark(KEY, LATER),
        lambda: admin.reset_mark(KEY, A),
    ):
        refused(double, folder, act, *texts)


def rebuilt(double: FirestoreDouble, folder: Path, collection: str = "watermark") -> None:
    marks_in(double, folder, collection).rebuild(Rebuilt([KEY.pkh], [KEY.chain_id], FLOOR), "")
    assert ask(double, folder, Mark(FLOOR + 1, 0, bytes(32)), collection) is Verdict.ADVANCE


def cut_short(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """What makes a store ends once it was begun, as by a kill: no mark has moved."""

    class Killed(BaseException):
        pass

    async def killed(*_: object) -> int:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Contents, "move", killed)
        with pytest.raises(Killed):
            act()


# Copied elsewhere


def copied(double: FirestoreDouble, collection: str) -> None:
    """What a restore leaves at another place: the same documents."""
    with double.documents.changed:
        for name, stored in list(double.documents.by_name.items()):
            double.documents.by_name[name.replace("/watermark/", f"/{collection}/")] = deepcopy(stored)


def test_a_store_that_was_copied_is_another_one(double: FirestoreDouble, one: Path, tmp_path: Path) -> None:
    copied(double, "copy")
    new = tmp_path / "new"
    new.mkdir()
    for folder in (one, new):
        every_way_but_rebuild(
            double,
            folder,
            f"is a copy of the one in Firestore {PLACE}",
            REBUILD,
            collection="copy",
            path="copy/enclave-host",
        )
    rebuilt(double, one, "copy")


@pytest.mark.parametrize("database", [{"project": "q"}, {"database": "restored"}])
def test_a_copy_in_another_project_or_database_is_another_one_too(
    double: FirestoreDouble, one: Path, database: dict[str, str]
) -> None:
    old = "projects/p/databases/(default)/"
    new = f"projects/{database.get('project', 'p')}/databases/{database.get('database', '(default)')}/"
    with double.documents.changed:
        for name, stored in list(double.documents.by_name.items()):
            double.documents.by_name[name.replace(old, new)] = deepcopy(stored)

    async def run() -> None:
        there = connected(double.address, **database)
        async with there, open_marks(one, there) as store:
            await store.advance(KEY, LATER)

    refused(double, one, lambda: asyncio.run(run()), f"is a copy of the one in Firestore {PLACE}")


def test_a_running_host_signs_nothing_on_a_copy(double: FirestoreDouble, one: Path) -> None:
    async def run() -> None:
        async with connected(double.address) as database, open_marks(one, database) as store:
            double.write(STORE, id=store_id(double), layout=1, place="p/other/watermark")
            with pytest.raises(StoreUnavailable, match="is a copy of the one in Firestore p/other/watermark"):
                await store.advance(KEY, LATER)

    asyncio.run(run())


def test_what_the_folder_remembers_is_one_place(double: FirestoreDouble, one: Path) -> None:
    """Documents that were copied and altered are no store that was accepted, though their id was."""
    copied(double, "copy")
    double.write("copy/enclave-host", id=store_id(double), layout=1, place="p/(default)/copy")
    with pytest.raises(ConfigError, match=r"this host had another one \(Firestore p/\(default\)/watermark\)"):
        ask(double, one, LATER, "copy")


# Not made to its end


def test_a_rebuild_that_was_cut_short_is_ended_by_rebuild_alone(
    double: FirestoreDouble, one: Path, two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = marks_in(double, one)
    cut_short(monkeypatch, lambda: admin.rebuild(Rebuilt([KEY.pkh], [KEY.chain_id], FLOOR), ""))
    for folder in (one, two):
        every_way_but_rebuild(double, folder, "was not completed: repeat `enclave-host watermark rebuild")
    rebuilt(double, two)
    assert signatory_marks(double)[KEY].level > FLOOR


def by_init(admin: WholeStore) -> None:
    admin.create()


def by_migrate(admin: WholeStore) -> None:
    admin.take_over({KEY: A})


@pytest.mark.parametrize(("make", "command"), [(by_init, "init"), (by_migrate, "migrate")])
def test_what_was_cut_short_is_repeated_where_it_began(
    double: FirestoreDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[WholeStore], None],
    command: str,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    write_signatory_marks(one, {OTHER: LATER})
    cut_short(monkeypatch, lambda: make(marks_in(double, one)))
    every_way_but_rebuild(double, two, f"repeat `enclave-host watermark {command}` on the host that began it", REBUILD)
    other = by_init if make is by_migrate else by_migrate
    text = f"repeat `enclave-host watermark {command}`"
    refused(double, one, lambda: other(marks_in(double, one)), text)
    make(marks_in(double, one))
    assert signatory_marks(double)[OTHER] == LATER
    assert ask(double, one, LATER) is Verdict.ADVANCE


def test_a_folder_that_lost_its_notes_ends_nothing(
    double: FirestoreDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(monkeypatch, marks_in(double, tmp_path).create)
    for content in ("", "{}", "[1]", "null"):
        (tmp_path / BEGUN_NAME).write_text(content)
        refused(double, tmp_path, marks_in(double, tmp_path).create, "is not what this host wrote there: rename it")
    (tmp_path / BEGUN_NAME).unlink()
    refused(double, tmp_path, marks_in(double, tmp_path).create, "watermark init` on the host that began it", REBUILD)
    rebuilt(double, tmp_path)


def test_nobody_opens_or_fills_what_another_has_begun(double: FirestoreDouble, one: Path) -> None:
    async def run() -> None:
        async with connected(double.address) as database:
            contents = Contents(database)
            for begun in ("first", "second"):
                await contents.begin_store(Making(begun, "rebuild", ()))
            with pytest.raises(ConfigError, match="another watermark store was begun meanwhile, by another host"):
                await contents.open_store("first")
            assert (await contents.store() or pytest.fail("none")).layout == 0
            # Nor is what was begun meanwhile replaced by what must replace nothing.
            with pytest.raises(ConfigError, match=r"was not completed: repeat .*rebuild"):
                await contents.begin_store(Making("third", "init", ("first", "second")))
            await contents.open_store("second")
            await contents.open_store("second")
            await contents.aclose()

    asyncio.run(run())
    with pytest.raises(ConfigError, match="is second, and this host had another one"):
        ask(double, one, LATER)


@pytest.mark.parametrize("commit", range(3))
@pytest.mark.parametrize("fault", [Fault.LOST, Fault.TIMED_OUT_AFTER])
def test_a_store_is_made_once_though_answers_are_lost(
    double: FirestoreDouble, tmp_path: Path, fault: Fault, commit: int
) -> None:
    write_signatory_marks(tmp_path, {KEY: A})
    double.faults = these_faults("Commit", *[None] * commit, fault)
    marks_in(double, tmp_path).create()
    assert ask(double, tmp_path, A) is Verdict.REPEAT


# Moved away


def test_a_store_whose_marks_were_moved_away_is_opened_by_no_other_host(
    double: FirestoreDouble, one: Path, two: Path
) -> None:
    marks_in(double, one).hand_over()
    every_way_but_rebuild(double, two, "were moved away: sign where they were moved to", REBUILD)
    rebuilt(double, two)


def test_whoever_moved_the_marks_away_takes_them_back(double: FirestoreDouble, one: Path, two: Path) -> None:
    admin, text = marks_in(double, one), "were moved away"
    double.faults = these_faults("Commit", Fault.LOST)
    assert admin.hand_over() == admin.hand_over() == {KEY: A}
    refused(double, one, admin.create, text)
    refused(double, one, lambda: ask(double, one, LATER), text)
    admin.forget()
    admin.take_over({KEY: LATER})
    assert ask(double, one, LATER) is Verdict.REPEAT
    assert store_id(double) not in (two / "watermark.firestore.json").read_text()


def test_a_copy_of_the_folder_from_before_takes_nothing_back(double: FirestoreDouble, one: Path) -> None:
    notes = (one / BEGUN_NAME).read_bytes()
    marks_in(double, one).hand_over()
    (one / BEGUN_NAME).write_bytes(notes)
    refused(double, one, marks_in(double, one).hand_over, "were moved away")
    refused(double, one, lambda: marks_in(double, one).take_over({KEY: A}), "were moved away")


# Not ours to judge


def test_a_store_of_a_later_version_is_never_touched(double: FirestoreDouble, one: Path) -> None:
    double.write(STORE, id=store_id(double), layout=2, place=PLACE)
    text = "has layout 2, this version knows 1: use a later version"
    every_way_but_rebuild(double, one, text)
    refused(double, one, lambda: rebuilt(double, one), text)


@pytest.mark.parametrize(
    "fields", [{}, {"id": "x"}, {"id": "x", "layout": "1"}, {"layout": 1}, {"id": "x", "layout": 1}]
)
def test_a_document_that_does_not_say_which_store_it_is_is_made_anew(
    double: FirestoreDouble, one: Path, fields: dict[str, object]
) -> None:
    double.write(STORE, **fields)
    for act in (marks_in(double, one).create, lambda: ask(double, one, LATER), marks_in(double, one).hand_over):
        refused(double, one, act, "is damaged", REBUILD)
    rebuilt(double, one)


# Moved once


def meanwhile(double: FirestoreDouble, act: Callable[[], object]) -> None:
    """The answer to the next commit is lost, and something happens before the next attempt."""
    lost, left = these_faults("Commit", Fault.LOST), [act]

    def faults(method: str) -> Fault | None:
        fault = lost(method)
        if fault is None and method == "BeginTransaction" and double.calls["Commit"] > commits and left:
            left.pop()()
        return fault

    commits = double.calls["Commit"]
    double.faults = faults


def test_a_mark_whose_reset_had_no_answer_is_not_reset_again(double: FirestoreDouble, one: Path, two: Path) -> None:
    high, low = Mark(FLOOR, 0, digest(FLOOR)), Mark(50, 0, None)
    ask(double, one, high)
    meanwhile(double, lambda: ask(double, two, Mark(51, 0, digest(51))))
    assert marks_in(double, one).reset_mark(KEY, low) == high
    assert marks_in(double, one).read().marks == {KEY: Mark(51, 0, digest(51))}


def test_a_mark_whose_raise_had_no_answer_was_raised_though_others_signed_since(
    double: FirestoreDouble, one: Path, two: Path
) -> None:
    meanwhile(double, lambda: ask(double, two, Mark(201, 0, digest(201))))
    marks_in(double, one).raise_mark(KEY, Mark(200, 0, None))
    assert marks_in(double, one).read().marks == {KEY: Mark(201, 0, digest(201))}


def test_marks_whose_adoption_had_no_answer_are_counted(double: FirestoreDouble, one: Path) -> None:
    double.faults = these_faults("Commit", Fault.LOST)
    assert marks_in(double, one).adopt({KEY: Mark(300, 0, digest(300))}) == 1


def test_what_never_had_an_answer_may_have_been_done(
    double: FirestoreDouble, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_WITHIN_S", 0.3)
    done: list[str] = []

    def faults(method: str) -> Fault | None:
        done.append(method)
        return (
            Fault.UNAVAILABLE if "Commit" in done and method != "Commit" else Fault.LOST if method == "Commit" else None
        )

    double.faults = faults
    with pytest.raises(
        StoreUnavailable, match="may have been done: look at the mark with `enclave-host watermark show`"
    ):
        marks_in(double, one).reset_mark(KEY, Mark(5, 0, None))
    assert signatory_marks(double)[KEY] == Mark(5, 0, None)


def test_what_is_not_granted_was_not_done(double: FirestoreDouble, one: Path) -> None:
    double.faults = lambda method: Fault.DENIED if method == "Commit" else None
    with pytest.raises(StoreUnavailable, match="grant this host's identity") as caught:
        marks_in(double, one).reset_mark(KEY, Mark(5, 0, None))
    assert "may have been done" not in str(caught.value)


def test_what_an_operator_changed_is_noted(double: FirestoreDouble, one: Path) -> None:
    marks_in(double, one).reset_mark(KEY, Mark(5, 0, None))
    (change,) = (stored.fields for path, stored in double.names().items() if path.startswith(f"{STORE}/changes/"))
    assert (change["lvl"].integer_value, change["new_lvl"].integer_value, change["pkh"].string_value) == (
        10,
        5,
        KEY.pkh,
    )
