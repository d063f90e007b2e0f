"""Damage costs one right: it alone is refused, until somebody raises its mark; meanwhile Signatory gets nothing back."""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.errors import ConfigError, HostError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.base import StoredMarks
from host_backend.watermark.file.held import held_store
from host_backend.watermark.file.layout import BLOCK_BYTES, parse_stray_record, slot_offset
from host_backend.watermark.file.place import store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import MAX_ROUND, Mark, MarkKey
from host_backend.watermark.signatory.folder import SignatoryFolder
from host_backend.watermark.signatory.layouts import FOLDER, read_signatory_marks, write_signatory_marks
from tests.doubles.faulty_blocks import FaultyDisk
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    REPEAT,
    A,
    B,
    Scenario,
    advance,
    created,
    digest,
    everything_in,
    export,
    gather,
    marks_of,
    open_and_close,
    read_marks,
    spoil_copy,
    use,
    use_to_a_bad_end,
)

EARLIER = Mark(5, 0, digest("earlier"))
#: Of `KEY`, in slot 0: the record of `A`, the newest, and that of `EARLIER`.
NEWEST, OLDER = 1, 0


@pytest.fixture
def marked(base: Path) -> Path:
    """A folder in which a right has signed twice, and another one once."""
    advance(base, KEY, EARLIER)
    advance(base, KEY, A)
    advance(base, OTHER, A)
    return base


@pytest.fixture
def damaged(marked: Path) -> Path:
    spoil_copy(marked, 0, NEWEST)
    return marked


async def only_others_sign(store: FileWatermarkStore) -> None:
    assert list(store.refused) == [KEY]
    assert f"{KEY.chain_id} {KEY.pkh} {KEY.right} LEVEL" in store.refused[KEY]
    for asked in (EARLIER, A, B, LATER):
        with pytest.raises(StoreUnavailable) as caught:
            await store.advance(KEY, asked)
        assert str(caught.value) == store.refused[KEY]
    assert await store.advance(OTHER, LATER) in (ADVANCE, REPEAT)
    # The store itself is well.
    assert store.problem is None


@pytest.mark.parametrize("copy", [NEWEST, OLDER])
def test_a_right_with_a_damaged_copy_is_refused_alone_and_for_good(marked: Path, copy: int) -> None:
    spoil_copy(marked, 0, copy)
    # What the copy that is left has, or what was handed back to Signatory.
    assert marks_of(marked).read() == StoredMarks({OTHER: A}, {KEY: A})
    for _ in range(2):
        use_to_a_bad_end(marked, only_others_sign)
        stored = marks_of(marked).read()
        assert stored.marks == {OTHER: LATER}
        known = stored.refused[KEY]
        assert known is not None
        assert (known.level, known.round) == (A.level, A.round)
    shutil.rmtree(marked / FOLDER)
    left = {NEWEST: EARLIER, OLDER: A}[copy]
    # In the file it is known without a digest: nothing at that place may be repeated.
    assert marks_of(marked).read() == StoredMarks({OTHER: LATER}, {KEY: Mark(left.level, left.round, None)})


def test_a_refusal_is_sealed_when_the_start_has_ended(marked: Path) -> None:
    """Else it could fall back, and the right would sign again from the copy that is left."""
    spoil_copy(marked, 0, NEWEST)
    disk = FaultyDisk()
    with held_store(marked, in_memory_allowed=True, blocks=disk.open):
        offset = slot_offset(0, NEWEST)
        record = store_path(marked).read_bytes()[offset : offset + BLOCK_BYTES]
    assert parse_stray_record(record).refused  # type: ignore[union-attr]
    with store_path(marked).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(BLOCK_BYTES))
    use_to_a_bad_end(marked, only_others_sign)


@pytest.mark.parametrize("calls", range(1, 8))
def test_a_read_error_that_goes_away_needs_nobody(marked: Path, calls: int) -> None:
    """The start that met it dies somewhere; the block is whole again at the next one."""
    disk = FaultyDisk()
    disk.unreadable = {slot_offset(0, NEWEST)}
    disk.fail_at = frozenset(range(calls, 1000))
    with suppress(StoreUnavailable), held_store(marked, in_memory_allowed=True, blocks=disk.open):
        pass
    shutil.rmtree(marked / FOLDER)
    assert not marks_of(marked).read().marks.keys() - {KEY, OTHER}


@pytest.mark.parametrize("low", [1, 9])
def test_what_is_refused_changes_no_byte(marked: Path, low: int) -> None:
    write = marked / FOLDER / "in-use-by-enclave-host.json"
    write.write_bytes(b'"enclave-host has these marks: stop it before Signatory starts"\n')
    before = everything_in(marked)
    for refused in (
        lambda: marks_of(marked).raise_mark(KEY, Mark(low, 0, None)),
        lambda: marks_of(marked).reset_mark(MarkKey(KEY.chain_id, KEY.pkh, Right.PREATTESTATION), Mark(low, 0, None)),
    ):
        with pytest.raises(ConfigError):
            refused()
        assert everything_in(marked) == before


def test_in_one_batch_with_others_too(damaged: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        asked = [(KEY, A), (OTHER, A), (KEY, LATER), (OTHER, B), (OTHER, LATER)]
        expected = [StoreUnavailable, REPEAT, StoreUnavailable, WatermarkRejected, ADVANCE]
        assert await gather(*(store.advance(*one) for one in asked)) == expected

    use_to_a_bad_end(damaged, scenario)


def test_a_block_that_cannot_be_read_is_a_damaged_one(marked: Path) -> None:
    disk = FaultyDisk()
    disk.unreadable = {slot_offset(0, NEWEST)}
    use_to_a_bad_end(marked, only_others_sign, disk)
    use_to_a_bad_end(marked, only_others_sign)


def test_a_slot_without_a_mark_that_is_damaged_is_refused_too(base: Path) -> None:
    with held_store(base, in_memory_allowed=True) as store:
        store.slots.give([KEY])
    # Either copy may have had the first mark.
    spoil_copy(base, 0, 1)
    assert marks_of(base).read() == StoredMarks({}, {KEY: None})
    use_to_a_bad_end(base, only_others_sign)
    marks_of(base).raise_mark(KEY, Mark(0, 0, None))
    assert read_marks(base) == {KEY: Mark(0, 0, None), OTHER: LATER}


def test_nothing_is_handed_back_meanwhile(damaged: Path) -> None:
    before = read_signatory_marks(damaged)
    text = use_to_a_bad_end(damaged, only_others_sign)
    assert KEY.pkh in text
    assert "no marks are handed back to Signatory's files, and it must not start" in text
    with pytest.raises(StoreUnavailable, match="no marks are handed back"):
        export(damaged)
    assert SignatoryFolder(damaged).left_behind
    assert read_signatory_marks(damaged) == before


def test_it_is_told_in_the_log_and_to_whoever_looks(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    use_to_a_bad_end(damaged, only_others_sign)
    assert [line for line in caplog.messages if line.startswith(f"the mark for {KEY} is damaged")]
    findings = marks_of(damaged).describe().findings
    assert [finding for finding in findings if finding.startswith(f"the mark for {KEY} is damaged")]


# What does not mend it


def signatorys_files(base: Path) -> None:
    write_signatory_marks(base, {KEY: LATER, OTHER: LATER})
    use_to_a_bad_end(base, only_others_sign)


def adopting(base: Path) -> None:
    with pytest.raises(ConfigError, match="all other marks are taken over"):
        marks_of(base).adopt({KEY: LATER, OTHER: LATER})
    assert marks_of(base).read().marks[OTHER] == LATER


def resetting(base: Path) -> None:
    with pytest.raises(ConfigError, match="is damaged, and nothing is signed for it"):
        marks_of(base).reset_mark(KEY, LATER)


def raising_too_little(base: Path) -> None:
    for mark in (EARLIER, Mark(4, MAX_ROUND, None), Mark(5, MAX_ROUND, None)):
        with pytest.raises(ConfigError, match=r"is damaged, and nothing is signed for it: .*, and above level "):
            marks_of(base).raise_mark(KEY, mark)


def raising_another(base: Path) -> None:
    marks_of(base).raise_mark(OTHER, LATER)


def making_another(base: Path) -> None:
    with pytest.raises(ConfigError, match="never overwritten"):
        created(base)


def retiring(base: Path) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        marks_of(base).retire()


@pytest.mark.parametrize(
    "use_it",
    [signatorys_files, adopting, resetting, raising_too_little, raising_another, making_another, retiring],
)
def test_nothing_else_mends_it(damaged: Path, use_it: Callable[[Path], None]) -> None:
    use_it(damaged)
    use_to_a_bad_end(damaged, only_others_sign)


def test_what_is_refused_of_an_offline_command_changes_no_byte(damaged: Path) -> None:
    before = everything_in(damaged)
    for use_it in (making_another, retiring):
        use_it(damaged)
    assert everything_in(damaged) == before


# What mends it


def refuses_up_to(level: int) -> Scenario:
    async def scenario(store: FileWatermarkStore) -> None:
        assert not store.refused
        for asked in (EARLIER, A, B, Mark(level, 0, digest(level))):
            with pytest.raises(WatermarkRejected):
                await store.advance(KEY, asked)
        assert await store.advance(KEY, Mark(level + 1, 0, digest(level + 1))) is ADVANCE

    return scenario


@pytest.mark.parametrize("started_before", [False, True])
def test_raising_it_mends_it(damaged: Path, started_before: bool) -> None:
    if started_before:
        use_to_a_bad_end(damaged, only_others_sign)
    marks_of(damaged).raise_mark(KEY, Mark(20, 0, None))
    # Whatever was owed to Signatory is handed back by then.
    assert not SignatoryFolder(damaged).left_behind
    assert read_signatory_marks(damaged) == read_marks(damaged)
    use(damaged, refuses_up_to(20))


def test_raising_it_goes_at_least_as_far_as_signatorys_files(damaged: Path) -> None:
    """What they have was signed: too low a level must not bring them down with it."""
    assert read_signatory_marks(damaged)[KEY] == A
    with pytest.raises(ConfigError, match="level 10"):
        marks_of(damaged).raise_mark(KEY, Mark(6, 0, None))
    assert read_signatory_marks(damaged)[KEY] == A
    use_to_a_bad_end(damaged, only_others_sign)


@pytest.mark.parametrize("started_before", [False, True])
def test_raising_it_goes_at_least_as_far_as_marks_of_another_program(damaged: Path, started_before: bool) -> None:
    """Its files are not read again: what they had of a damaged right is kept here."""
    if started_before:
        use_to_a_bad_end(damaged, only_others_sign)
    for _ in range(2):
        with pytest.raises(ConfigError, match="all other marks are taken over"):
            marks_of(damaged).adopt({KEY: Mark(9000, 3, digest("theirs")), OTHER: LATER})
    for low in (A, EARLIER):
        with pytest.raises(ConfigError, match="all other marks are taken over"):
            marks_of(damaged).adopt({KEY: low})
    assert marks_of(damaged).read().refused[KEY] == Mark(9000, 3, None)
    with pytest.raises(ConfigError, match="above level 9000"):
        marks_of(damaged).raise_mark(KEY, Mark(9000, MAX_ROUND, None))
    use_to_a_bad_end(damaged, only_others_sign)
    marks_of(damaged).raise_mark(KEY, Mark(9001, 0, None))
    use(damaged, refuses_up_to(9001))


def test_making_the_store_anew_mends_it(damaged: Path) -> None:
    marks_of(damaged).rebuild(Rebuilt([], [], 20), ".damaged")
    use(damaged, refuses_up_to(20))


def test_of_two_damaged_rights_each_is_raised_alone(marked: Path) -> None:
    spoil_copy(marked, 0, NEWEST)
    spoil_copy(marked, 1, 0)
    admin = marks_of(marked)
    admin.raise_mark(KEY, Mark(20, 0, None))
    assert set(admin.read().refused) == {OTHER}
    assert SignatoryFolder(marked).left_behind
    admin.raise_mark(OTHER, Mark(20, 0, None))
    assert read_marks(marked) == read_signatory_marks(marked) == {KEY: Mark(20, 0, None), OTHER: Mark(20, 0, None)}
    assert not SignatoryFolder(marked).left_behind
    open_and_close(marked)


def test_a_refusal_that_cannot_be_written_is_no_start(damaged: Path) -> None:
    """It must outlive a restart, before anything is judged."""
    before = marks_of(damaged).read()
    disk = FaultyDisk()
    # Both headers come first.
    disk.fail_call(5)
    with pytest.raises(HostError, match="Input/output error"):
        use(damaged, only_others_sign, disk)
    assert marks_of(damaged).read() == before
    use_to_a_bad_end(damaged, only_others_sign)
