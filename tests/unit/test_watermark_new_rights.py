"""First marks: rights get their slots in two steps, the file grows, and where there is no room only they are refused."""

import asyncio
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.watermark.file import store as store_module
from host_backend.watermark.file.layout import CHUNK_SLOTS, file_bytes
from host_backend.watermark.file.place import store_path
from host_backend.watermark.file.slots import SPARE_SLOTS
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import MAX_CHAINS_PER_KEY, MarkKey
from host_backend.watermark.signatory.layouts import read_signatory_marks
from tests.doubles.faulty_blocks import FaultyDisk, Loss, keep_new, keep_old
from tests.doubles.small_disk import files_up_to
from tests.doubles.watermarks import (
    ADVANCE,
    KEY,
    LATER,
    OTHER,
    REPEAT,
    A,
    B,
    advance,
    gather,
    marks_of,
    read_marks,
    some_chain,
    some_pkh,
    use,
)

#: What a right costs before its first mark: two copies with its identity, a sync, two headers, a sync after each.
CALLS_OF_A_SLOT = 7
CALLS_OF_A_MARK = 2
#: So many slots has a new file.
FULL = [MarkKey(KEY.chain_id, some_pkh(number), Right.ATTESTATION) for number in range(CHUNK_SLOTS)]


async def ask(store: FileWatermarkStore, keys: Iterable[MarkKey]) -> list[object]:
    return await gather(*(store.advance(key, A) for key in keys))


@pytest.mark.usefixtures("never_quiet")
def test_a_right_costs_so_many_calls(base: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        calls = disk.calls
        assert await store.advance(KEY, A) is ADVANCE
        assert disk.calls - calls == CALLS_OF_A_SLOT + CALLS_OF_A_MARK
        assert await store.advance(KEY, LATER) is ADVANCE
        assert disk.calls - calls == CALLS_OF_A_SLOT + 2 * CALLS_OF_A_MARK

    use(base, scenario, disk)


EVERY_CALL = range(1, CALLS_OF_A_SLOT + CALLS_OF_A_MARK + 1)


@pytest.mark.usefixtures("never_quiet")
@pytest.mark.parametrize("failing", EVERY_CALL)
def test_whichever_call_of_a_first_mark_fails_the_message_may_be_asked_again(base: Path, failing: int) -> None:
    advance(base, OTHER, A)
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.fail_call(failing)
        with pytest.raises(StoreUnavailable):
            await store.advance(KEY, A)
        # Whether the mark has moved depends on what failed; another message is never allowed beside it.
        moved = failing > CALLS_OF_A_SLOT
        expected = [REPEAT if moved else ADVANCE, WatermarkRejected, REPEAT]
        asked = [(KEY, A), (KEY, B), (OTHER, A)]
        assert await gather(*(store.advance(*one) for one in asked)) == expected

    use(base, scenario, disk)
    assert read_marks(base) == {KEY: A, OTHER: A}


@pytest.mark.usefixtures("never_quiet")
@pytest.mark.parametrize("failing", EVERY_CALL)
@pytest.mark.parametrize("loss", [keep_old, keep_new])
def test_whichever_call_of_a_first_mark_fails_before_power_is_lost_the_store_starts(
    base: Path, tmp_path: Path, failing: int, loss: Loss
) -> None:
    advance(base, OTHER, A)
    disk, left = FaultyDisk(), tmp_path / "left"

    async def scenario(store: FileWatermarkStore) -> None:
        disk.fail_call(failing)
        with pytest.raises(StoreUnavailable):
            await store.advance(KEY, A)
        shutil.copytree(base, left)
        disk.lose_power(store_path(left), loss)

    use(base, scenario, disk)

    async def after(store: FileWatermarkStore) -> None:
        assert await gather(store.advance(OTHER, A), store.advance(OTHER, B)) == [REPEAT, WatermarkRejected]
        assert await store.advance(KEY, A) is (REPEAT if loss is keep_new and failing > CALLS_OF_A_SLOT else ADVANCE)

    use(left, after)


@pytest.mark.usefixtures("never_quiet")
def test_where_the_file_cannot_grow_only_new_rights_are_refused(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await ask(store, FULL) == [ADVANCE] * CHUNK_SLOTS
        with files_up_to(file_bytes(1)):
            for _ in range(2):
                with pytest.raises(
                    StoreUnavailable, match=r"no slot for the first mark of another right: .*File too large"
                ):
                    await store.advance(KEY, A)
            # In one batch with others, too.
            asked = [(KEY, A), (FULL[0], LATER), (OTHER, A), (FULL[1], A), (FULL[0], B)]
            assert await gather(*(store.advance(*one) for one in asked)) == [
                StoreUnavailable,
                ADVANCE,
                StoreUnavailable,
                REPEAT,
                WatermarkRejected,
            ]
            # The store is well: no one else is kept from signing.
            assert store.problem is None
        assert await ask(store, [KEY, OTHER]) == [ADVANCE, ADVANCE]

    use(base, scenario)
    assert read_marks(base) == dict.fromkeys([*FULL[1:], KEY, OTHER], A) | {FULL[0]: LATER}
    assert store_path(base).stat().st_size == file_bytes(2 * CHUNK_SLOTS)


def test_where_the_file_cannot_grow_no_mark_is_raised_for_another_right(base: Path) -> None:
    marks_of(base).adopt(dict.fromkeys(FULL, A))
    before = read_signatory_marks(base)
    with files_up_to(file_bytes(1)):
        with pytest.raises(StoreUnavailable, match="File too large"):
            marks_of(base).raise_mark(KEY, A)
        with pytest.raises(StoreUnavailable, match="File too large"):
            marks_of(base).adopt({FULL[0]: LATER, KEY: A})
    assert read_signatory_marks(base) == before
    marks_of(base).raise_mark(KEY, A)
    assert read_marks(base) == dict.fromkeys([*FULL, KEY], A)


@pytest.mark.usefixtures("never_quiet")
def test_a_burst_of_new_rights_beyond_the_file_s_size_gets_its_slots_at_once(base: Path) -> None:
    keys = [MarkKey(KEY.chain_id, some_pkh(number), right) for number in range(300) for right in Right]

    async def scenario(store: FileWatermarkStore) -> None:
        assert await ask(store, keys) == [ADVANCE] * 900

    use(base, scenario)
    assert read_marks(base) == dict.fromkeys(keys, A)
    assert store_path(base).stat().st_size == file_bytes(900)

    async def again(store: FileWatermarkStore) -> None:
        assert await ask(store, keys) == [REPEAT] * 900

    use(base, again)


class GrowingDisk(FaultyDisk):
    """Tells when the file has grown."""

    def __init__(self, path: Path, wanted_bytes: int) -> None:
        super().__init__()
        self._path = path
        self._wanted_bytes = wanted_bytes
        self.grown = threading.Event()

    def synced(self) -> None:
        super().synced()
        if self._path.stat().st_size >= self._wanted_bytes:
            self.grown.set()


def test_the_file_grows_when_nobody_waits_before_it_is_full(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = GrowingDisk(store_path(base), file_bytes(CHUNK_SLOTS + 1))

    async def scenario(store: FileWatermarkStore) -> None:
        assert await ask(store, FULL[:-SPARE_SLOTS]) == [ADVANCE] * (CHUNK_SLOTS - SPARE_SLOTS)
        assert not disk.grown.is_set()
        assert await ask(store, [KEY]) == [ADVANCE]
        assert await asyncio.to_thread(disk.grown.wait, 60)

    monkeypatch.setattr(store_module, "_QUIET_S", 0.01)
    use(base, scenario, disk)
    assert store_path(base).stat().st_size == file_bytes(2 * CHUNK_SLOTS)


@pytest.mark.usefixtures("never_quiet")
def test_a_chain_on_which_no_slot_was_given_does_not_count(base: Path) -> None:
    disk = FaultyDisk()
    keys = [MarkKey(some_chain(number), KEY.pkh, KEY.right) for number in range(33)]

    async def scenario(store: FileWatermarkStore) -> None:
        for few in (keys[:1], keys[1:16]):
            disk.fail_next = 1
            assert await ask(store, few) == [StoreUnavailable] * len(few)
        assert await ask(store, keys[16:]) == [ADVANCE] * MAX_CHAINS_PER_KEY + [WatermarkRejected]

    use(base, scenario, disk)
    assert read_marks(base) == dict.fromkeys(keys[16:32], A)


@pytest.mark.usefixtures("never_quiet")
def test_a_chain_whose_first_mark_is_in_doubt_counts(base: Path) -> None:
    disk = FaultyDisk()
    keys = [MarkKey(some_chain(number), KEY.pkh, KEY.right) for number in range(17)]

    async def scenario(store: FileWatermarkStore) -> None:
        disk.fail_call(CALLS_OF_A_SLOT + CALLS_OF_A_MARK)
        assert await ask(store, keys[:1]) == [StoreUnavailable]
        assert await ask(store, keys) == [REPEAT] + [ADVANCE] * 15 + [WatermarkRejected]

    use(base, scenario, disk)
    assert read_marks(base) == dict.fromkeys(keys[:16], A)
