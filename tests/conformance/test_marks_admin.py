"""What every `MarksAdmin` does. A new one joins by one more entry in `STORAGES`; the one of `mem` refuses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.errors import ConfigError, HostError
from host_backend.watermark.base import MarksAdmin, MarksDescription, StoredMarks, WatermarkStore
from host_backend.watermark.file.place import STORE_NAME
from host_backend.watermark.firestore.store import open_marks
from host_backend.watermark.memory import MemoryMarks
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import MAX_LEVEL, MAX_ROUND, Mark, MarkKey
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import read_signatory_marks, write_signatory_marks
from tests.doubles.google.clients import connected, marks_in, signatory_marks
from tests.doubles.google.firestore import FirestoreDouble, running_firestore
from tests.doubles.watermarks import (
    KEY,
    LATER,
    OTHER,
    A,
    B,
    everything_in,
    marks_of,
    opened,
    some_chain,
    some_pkh,
)


class InFile:
    """Marks in the file of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def admin(self) -> MarksAdmin:
        return marks_of(self._folder)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[WatermarkStore]:
        store = await opened(self._folder)
        try:
            yield store
        finally:
            await store.aclose()

    def everything(self) -> object:
        """Everything that is reported of marks."""
        return everything_in(self._folder)

    def signatory(self) -> dict[MarkKey, Mark]:
        """What Signatory goes on from."""
        return read_signatory_marks(self._folder)


class InFirestore:
    """Marks in a collection, and the folder that remembers it."""

    def __init__(self, folder: Path, double: FirestoreDouble) -> None:
        self._folder, self._double = folder, double

    def admin(self) -> MarksAdmin:
        return marks_in(self._double, self._folder)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[WatermarkStore]:
        async with connected(self._double.address) as database, open_marks(self._folder, database) as store:
            yield store

    def everything(self) -> object:
        return everything_in(self._folder), self._double.names()

    def signatory(self) -> dict[MarkKey, Mark]:
        return signatory_marks(self._double)


Storage = InFile | InFirestore


@contextmanager
def in_file(folder: Path) -> Iterator[Storage]:
    yield InFile(folder)


@contextmanager
def in_firestore(folder: Path) -> Iterator[Storage]:
    with running_firestore() as double:
        yield InFirestore(folder, double)


STORAGES: dict[str, Callable[[Path], AbstractContextManager[Storage]]] = {"file": in_file, "firestore": in_firestore}
HIGHEST = Mark(MAX_LEVEL, MAX_ROUND, None)


@pytest.fixture(params=STORAGES)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def storage(driver: str, tmp_path: Path) -> Iterator[Storage]:
    with STORAGES[driver](tmp_path) as storage:
        yield storage


@pytest.fixture
def admin(storage: Storage) -> MarksAdmin:
    return storage.admin()


#: What one driver does, and the others have nothing of.
of_file = pytest.mark.parametrize("driver", ["file"], indirect=True)


@pytest.fixture
def marked(admin: MarksAdmin) -> MarksAdmin:
    """One that has two marks."""
    admin.create()
    assert admin.adopt({KEY: A, OTHER: LATER}) == 2
    return admin


def marks(admin: MarksAdmin) -> dict[MarkKey, Mark]:
    stored = admin.read()
    assert not stored.refused
    return dict(stored.marks)


def refused(storage: Storage, act: Callable[[], object], text: str) -> None:
    """A refusal says why, and has changed nothing that is reported of marks."""
    before = storage.everything()
    with pytest.raises(ConfigError, match=text):
        act()
    assert storage.everything() == before


# Making


def test_a_new_store_has_no_marks_and_is_made_once(admin: MarksAdmin, storage: Storage) -> None:
    assert admin.describe() == MarksDescription()
    admin.create()
    assert admin.read() == StoredMarks({}, {})
    assert admin.describe() == MarksDescription(StoredMarks({}, {}), findings=admin.describe().findings)
    refused(storage, admin.create, "never overwritten")


def test_a_new_store_has_the_marks_that_signatory_left(admin: MarksAdmin, driver: str, tmp_path: Path) -> None:
    write_signatory_marks(tmp_path, {KEY: A, OTHER: LATER})
    # Only in a folder a first start makes one by itself: an empty collection may be the wrong one.
    assert admin.describe().waiting == (2 if driver == "file" else 0)
    admin.create()
    assert marks(admin) == {KEY: A, OTHER: LATER}
    assert admin.describe().waiting == 0


def test_without_a_store_everything_else_is_refused(admin: MarksAdmin, storage: Storage) -> None:
    for act in (
        admin.read,
        admin.export,
        admin.retire,
        lambda: admin.raise_mark(KEY, A),
        lambda: admin.reset_mark(KEY, A),
        lambda: admin.adopt({KEY: A}),
    ):
        refused(storage, act, "no watermark store (at|in) ")


def test_while_a_host_runs_it_can_be_read_and_nothing_else(admin: MarksAdmin, storage: Storage) -> None:
    admin.create()

    async def run() -> None:
        async with storage.opened() as store:
            await store.advance(KEY, A)
            await while_it_runs()

    async def while_it_runs() -> None:
        assert await asyncio.to_thread(marks, admin) == {KEY: A}
        description = await asyncio.to_thread(admin.describe)
        assert description.stored == StoredMarks({KEY: A}, {})
        assert description.host is not None
        assert not description.crashed
        for act in (
            admin.create,
            admin.export,
            admin.retire,
            lambda: admin.raise_mark(KEY, LATER),
            lambda: admin.reset_mark(KEY, LATER),
            lambda: admin.adopt({KEY: LATER}),
            lambda: admin.rebuild(Rebuilt([], [], 100), ".damaged"),
        ):
            await asyncio.to_thread(refused, storage, act, "is in use by process")

    asyncio.run(run())
    assert admin.describe().host is None


# Up


def test_a_mark_is_raised_wherever_it_was_and_wherever_there_was_none(marked: MarksAdmin) -> None:
    third = MarkKey(KEY.chain_id, KEY.pkh, Right.PREATTESTATION)
    marked.raise_mark(KEY, Mark(20, 3, None))
    marked.raise_mark(OTHER, HIGHEST)
    marked.raise_mark(third, Mark(0, 0, None))
    assert marks(marked) == {KEY: Mark(20, 3, None), OTHER: HIGHEST, third: Mark(0, 0, None)}


@pytest.mark.parametrize("mark", [A, B, Mark(10, 1, None), Mark(9, 3, None), Mark(0, 0, None)])
def test_a_mark_is_never_lowered_by_raising(marked: MarksAdmin, mark: Mark) -> None:
    with pytest.raises(ConfigError, match="is at level 10 round 2 and moves only up"):
        marked.raise_mark(KEY, mark)
    assert marks(marked) == {KEY: A, OTHER: LATER}


@pytest.mark.parametrize(("level", "round_"), [(-1, 0), (0, -1), (MAX_LEVEL + 1, 0), (0, MAX_ROUND + 1)])
def test_no_mark_is_out_of_range(marked: MarksAdmin, storage: Storage, level: int, round_: int) -> None:
    for act in (marked.raise_mark, marked.reset_mark):
        refused(storage, partial(act, KEY, Mark(level, round_, None)), "must be from 0 to 2147483647")


def test_what_is_raised_is_refused_to_hosts(marked: MarksAdmin, storage: Storage) -> None:
    marked.raise_mark(KEY, Mark(20, 3, None))

    async def run() -> None:
        async with storage.opened() as store:
            for asked in (A, LATER, Mark(20, 3, bytes(32))):
                with pytest.raises(HostError, match=r"^watermark validation failed"):
                    await store.advance(KEY, asked)
            await store.advance(KEY, Mark(20, 4, bytes([4] * 32)))

    asyncio.run(run())


# Down


def test_a_mark_is_reset_anywhere_and_the_old_one_is_told(marked: MarksAdmin, storage: Storage) -> None:
    assert marked.reset_mark(KEY, Mark(3, 0, None)) == A
    assert marked.reset_mark(KEY, HIGHEST) == Mark(3, 0, None)
    assert marked.reset_mark(KEY, Mark(0, 0, None)) == HIGHEST
    assert marks(marked) == {KEY: Mark(0, 0, None), OTHER: LATER}
    # Signatory's files would bring the old one back at the next start.
    assert storage.signatory()[KEY] == Mark(0, 0, None)


def test_only_a_mark_that_is_there_is_reset(marked: MarksAdmin) -> None:
    with pytest.raises(ConfigError, match=r"there is no mark for preattestation of .*: nothing to reset"):
        marked.reset_mark(MarkKey(KEY.chain_id, KEY.pkh, Right.PREATTESTATION), LATER)
    assert marks(marked) == {KEY: A, OTHER: LATER}


# From others, and to others


def test_of_two_stores_the_highest_marks_count(marked: MarksAdmin) -> None:
    third = MarkKey(some_chain(1), some_pkh(1), Right.BLOCK)
    assert marked.adopt({KEY: LATER, OTHER: A, third: A}) == 2
    assert marks(marked) == {KEY: LATER, OTHER: LATER, third: A}
    assert marked.adopt({KEY: LATER, OTHER: A}) == 0
    # Of two messages at one place neither may be repeated.
    assert marked.adopt({third: B}) == 0
    assert marks(marked)[third] == Mark(A.level, A.round, None)


def test_marks_of_ever_so_many_keys_and_chains_are_adopted_at_once(marked: MarksAdmin) -> None:
    theirs = {MarkKey(some_chain(number % 70), some_pkh(number), right): A for number in range(400) for right in Right}
    assert marked.adopt(theirs) == 1200
    assert marks(marked) == theirs | {KEY: A, OTHER: LATER}


def test_every_change_is_seen_by_signatory_and_it_may_start(
    marked: MarksAdmin, storage: Storage, driver: str, tmp_path: Path
) -> None:
    folder = SignatoryFolder(tmp_path)
    for change in (
        lambda: marked.raise_mark(KEY, LATER),
        lambda: marked.reset_mark(KEY, Mark(3, 0, None)),
        lambda: marked.adopt({OTHER: HIGHEST}),
        marked.export,
    ):
        change()
        assert storage.signatory() == marks(marked)
        # It is kept away from the files of a folder alone.
        assert folder.left_behind == (driver == "firestore" and change != marked.export)


@of_file
def test_a_change_that_is_refused_keeps_signatory_out_no_longer(marked: MarksAdmin, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        marked.raise_mark(KEY, Mark(0, 0, None))
    assert not SignatoryFolder(tmp_path).left_behind


@of_file
def test_a_store_that_is_put_aside_has_handed_over_everything(
    marked: MarksAdmin, storage: Storage, tmp_path: Path
) -> None:
    marked.retire()
    assert read_signatory_marks(tmp_path) == {KEY: A, OTHER: LATER}
    # Neither this driver nor Signatory starts here again as if nothing were signed elsewhere.
    assert SignatoryFolder(tmp_path).forgotten
    refused(storage, marked.create, "`enclave-host watermark rebuild")
    refused(storage, marked.retire, "nothing to migrate")


# Anew


def test_a_store_is_made_anew_of_everything_that_is_found(
    marked: MarksAdmin, storage: Storage, driver: str, tmp_path: Path
) -> None:
    elsewhere = MarkKey(some_chain(1), some_pkh(1), Right.BLOCK)
    write_signatory_marks(tmp_path, {KEY: LATER, elsewhere: Mark(500, 7, bytes(32))})
    named = some_chain(2)
    assert marked.rebuild(Rebuilt([], [named], 10), ".damaged") == 18
    found = marks(marked)
    pairs = {(key.chain_id, key.pkh) for key in (KEY, OTHER, elsewhere)}
    assert {(key.chain_id, key.pkh) for key in found} == pairs | {(named, pkh) for _, pkh in pairs}
    floor = Mark(10, MAX_ROUND, None)
    assert found == dict.fromkeys(found, floor) | {KEY: LATER, OTHER: LATER, elsewhere: Mark(500, 7, bytes(32))}
    assert storage.signatory() == found
    assert SignatoryFolder(tmp_path).left_behind == (driver == "firestore")


def test_keys_and_chains_that_are_named_get_marks_for_all_rights(admin: MarksAdmin) -> None:
    assert admin.rebuild(Rebuilt([KEY.pkh, OTHER.pkh], [KEY.chain_id], 1000), ".damaged") == 6
    floor = Mark(1000, MAX_ROUND, None)
    assert marks(admin) == {MarkKey(KEY.chain_id, pkh, right): floor for pkh in (KEY.pkh, OTHER.pkh) for right in Right}


def test_marks_that_are_known_from_elsewhere_count_like_those_that_are_found(marked: MarksAdmin) -> None:
    elsewhere = MarkKey(some_chain(1), some_pkh(1), Right.BLOCK)
    known = {KEY: Mark(1, 0, None), OTHER: Mark(LATER.level + 1, 0, None), elsewhere: Mark(5, 0, None)}
    marked.rebuild(Rebuilt([], [], 10, known), ".damaged")
    found = marks(marked)
    assert (found[KEY], found[OTHER]) == (Mark(10, MAX_ROUND, None), known[OTHER])
    assert {(key.chain_id, key.pkh) for key in found} == {(key.chain_id, key.pkh) for key in (KEY, OTHER, elsewhere)}
    assert found[elsewhere] == Mark(10, MAX_ROUND, None)


def test_more_marks_than_a_store_holds_are_refused(marked: MarksAdmin, storage: Storage) -> None:
    pkhs = [some_pkh(number) for number in range(700)]
    chains = [some_chain(number) for number in range(64)]
    refused(storage, lambda: marked.rebuild(Rebuilt(pkhs, chains, 10), ".damaged"), "name fewer chains")


@of_file
def test_the_store_from_before_is_kept(marked: MarksAdmin, tmp_path: Path) -> None:
    before = set(everything_in(tmp_path).values())
    marked.rebuild(Rebuilt([], [], 10), ".damaged-1")
    marked.rebuild(Rebuilt([], [], 10), ".damaged-2")
    after = everything_in(tmp_path)
    kept = [path for path in after if path.name.endswith((".damaged-1", ".damaged-2"))]
    assert len(kept) == 2
    assert after[min(kept)] in before


@of_file
def test_a_rebuilt_store_keeps_the_permissions_of_the_old_one(marked: MarksAdmin, tmp_path: Path) -> None:
    (store,) = tmp_path.rglob(STORE_NAME)
    store.chmod(0o640)
    marked.rebuild(Rebuilt([], [], 10), ".damaged")
    assert store.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("level", [-1, MAX_LEVEL + 1])
def test_no_store_is_made_above_a_level_that_there_is_not(marked: MarksAdmin, storage: Storage, level: int) -> None:
    refused(storage, lambda: marked.rebuild(Rebuilt([], [], level), ".damaged"), "must be from 0 to 2147483647")


def test_no_store_is_made_of_nothing(admin: MarksAdmin, storage: Storage) -> None:
    named: tuple[tuple[list[str], list[str]], ...] = (([], []), ([KEY.pkh], []), ([], [KEY.chain_id]))
    for pkhs, chains in named:
        refused(storage, partial(admin.rebuild, Rebuilt(pkhs, chains, 5), ".damaged"), "no marks are found")


# In memory


@pytest.mark.parametrize(
    "act",
    [
        MemoryMarks.create,
        MemoryMarks.read,
        lambda admin: admin.raise_mark(KEY, A),
        lambda admin: admin.reset_mark(KEY, A),
        lambda admin: admin.adopt({KEY: A}),
        MemoryMarks.export,
        lambda admin: admin.rebuild(Rebuilt([KEY.pkh], [KEY.chain_id], 5), ".damaged"),
        MemoryMarks.retire,
    ],
)
def test_marks_in_memory_are_for_nobody_to_look_after(tmp_path: Path, act: Callable[[MarksAdmin], object]) -> None:
    refused(InFile(tmp_path), lambda: act(MemoryMarks(tmp_path)), r"^watermark\.driver is mem: .*write `driver: file`$")
    assert everything_in(tmp_path) == {}


def test_of_marks_in_memory_it_is_told_what_there_is(tmp_path: Path) -> None:
    assert MemoryMarks(tmp_path).describe() == MarksDescription()
