"""`FileWatermarkStore` answers for durable marks, and for nothing else: closing, crashes, failing disks."""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.watermark.file.blocks import Blocks
from host_backend.watermark.file.held import held_store
from host_backend.watermark.file.layout import BLOCK_BYTES, slot_offset
from host_backend.watermark.file.place import store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import Mark
from host_backend.watermark.signatory.folder import SignatoryFolder
from tests.doubles.faulty_blocks import FaultyDisk, Loss, keep_new, keep_old, torn
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
    digest,
    everything_in,
    gather,
    marks_of,
    nothing,
    read_marks,
    use,
    use_to_a_bad_end,
)

pytestmark = pytest.mark.usefixtures("never_quiet")


def test_marks_survive_closing(base: Path) -> None:
    advance(base, KEY, A)
    advance(base, OTHER, LATER)
    assert read_marks(base) == {KEY: A, OTHER: LATER}

    async def scenario(store: FileWatermarkStore) -> None:
        assert await gather(store.advance(KEY, A), store.advance(KEY, B)) == [REPEAT, WatermarkRejected]

    use(base, scenario)


def test_marks_survive_without_closing(base: Path, tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(KEY, A)
        shutil.copytree(base, crashed)

    use(base, scenario)
    assert read_marks(crashed) == {KEY: A}
    description = marks_of(crashed).describe()
    assert (description.crashed, description.host) == (True, None)
    # By itself, and as often as it likes.
    for _ in range(2):
        use(crashed, scenario_of_a_repeat)
    assert read_marks(crashed) == {KEY: A}


async def scenario_of_a_repeat(store: FileWatermarkStore) -> None:
    assert await gather(store.advance(KEY, A), store.advance(KEY, B)) == [REPEAT, WatermarkRejected]


def test_running_store_can_be_read(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        for level in range(5):
            asked = Mark(level, 0, digest(level))
            assert await store.advance(KEY, asked) is ADVANCE
            assert read_marks(base) == {KEY: asked}
        description = marks_of(base).describe()
        assert (description.crashed, description.host) == (False, os.getpid())

    use(base, scenario)


# Power that is lost


@pytest.mark.parametrize("loss", [keep_old, keep_new])
@pytest.mark.parametrize("failing", [1, 2])
def test_power_lost_after_a_batch_that_failed_takes_nothing_that_was_answered(
    base: Path, failing: int, loss: Loss
) -> None:
    disk = FaultyDisk()
    advance(base, KEY, A)

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(OTHER, A) is ADVANCE
        disk.fail_call(failing)
        with pytest.raises(StoreUnavailable):
            await store.advance(KEY, LATER)
        disk.fail_next = 1000

    assert "Input/output error" in use_to_a_bad_end(base, scenario, disk)
    disk.lose_power(store_path(base), loss)

    async def after(store: FileWatermarkStore) -> None:
        assert await gather(*(store.advance(key, B) for key in (KEY, OTHER))) == [WatermarkRejected] * 2
        assert await store.advance(KEY, LATER) in (ADVANCE, REPEAT)

    use(base, after)


def test_what_may_be_in_memory_alone_is_made_durable_before_a_repeat_is_answered(base: Path, tmp_path: Path) -> None:
    """A mark may be read that was never synced: to answer a repeat from it would be a promise without base."""
    advance(base, KEY, A)
    killed, disk, after = tmp_path / "killed", FaultyDisk(), FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.fail_call(2)
        with pytest.raises(StoreUnavailable):
            await store.advance(KEY, LATER)
        shutil.copytree(base, killed)
        after.forgotten |= disk.forgotten

    use(base, scenario, disk)
    assert read_marks(killed) == {KEY: LATER}
    assert after.forgotten

    async def repeat(store: FileWatermarkStore) -> None:
        assert not after.forgotten
        assert not after.unsynced
        assert await store.advance(KEY, LATER) is REPEAT

    use(killed, repeat, after)
    assert read_marks(killed) == {KEY: LATER}


def test_whatever_fails_while_it_opens_there_is_no_start_and_nothing_is_lost(base: Path, tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"

    async def scenario(store: FileWatermarkStore) -> None:
        assert await gather(store.advance(KEY, A), store.advance(OTHER, A)) == [ADVANCE] * 2
        shutil.copytree(base, crashed)

    use(base, scenario)
    whole = FaultyDisk()
    with held_store(shutil.copytree(crashed, tmp_path / "whole"), in_memory_allowed=True, blocks=whole.open):
        calls = whole.calls
    # Two records that may be in memory alone, two headers, and three syncs.
    assert calls == 6
    for failing in range(1, calls + 1):
        for loss in (keep_old, torn):
            folder, disk = shutil.copytree(crashed, tmp_path / f"{failing} {loss.__name__}"), FaultyDisk()
            disk.fail_call(failing)
            disk.torn_bytes = BLOCK_BYTES // 8
            with pytest.raises(StoreUnavailable, match="Input/output error"):
                use(folder, nothing, disk)
            disk.lose_power(store_path(folder), loss)
            found = marks_of(folder).read()
            # What was torn is what was in doubt: these rights, at worst, never another mark.
            assert not found.refused or loss is torn
            assert {**found.marks, **dict.fromkeys(found.refused, A)} == {KEY: A, OTHER: A}


# Disks that fail


def test_a_disk_that_fails_is_tried_at_each_request(base: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        disk.fail_next = 3
        # Not even a repeat or a refusal is answered from memory.
        for asked in (LATER, A, B):
            with pytest.raises(StoreUnavailable, match=r"Input/output error; look at the disk$"):
                await store.advance(KEY, asked)
            assert store.problem is not None
        assert await gather(store.advance(KEY, B), store.advance(KEY, LATER)) == [WatermarkRejected, REPEAT]
        assert store.problem is None

    use(base, scenario, disk)
    assert read_marks(base) == {KEY: LATER}


def test_after_a_write_that_failed_the_other_copy_is_not_touched_before_it_is_settled(base: Path) -> None:
    advance(base, KEY, A)
    disk = FaultyDisk()

    def copies() -> list[bytes]:
        data = store_path(base).read_bytes()
        return [data[slot_offset(0, copy) : slot_offset(0, copy) + BLOCK_BYTES] for copy in range(2)]

    async def scenario(store: FileWatermarkStore) -> None:
        before = copies()
        disk.fail_next, disk.torn_bytes = 1, 100
        with pytest.raises(StoreUnavailable):
            await store.advance(KEY, LATER)
        (touched,) = (copy for copy in range(2) if copies()[copy] != before[copy])
        disk.fail_next = 1
        with pytest.raises(StoreUnavailable):
            await store.advance(KEY, Mark(12, 0, digest(12)))
        assert copies()[1 - touched] == before[1 - touched]
        assert await store.advance(KEY, LATER) is REPEAT
        assert copies()[1 - touched] == before[1 - touched]

    use(base, scenario, disk)


def test_a_disk_that_never_takes_it_again_gets_another_advice(base: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        disk.fail_next = 1000
        texts = []
        for _ in range(11):
            with pytest.raises(StoreUnavailable) as caught:
                await store.advance(KEY, LATER)
            texts.append("`enclave-host watermark rebuild --above-level N`" in str(caught.value))
        assert texts == [False] * 9 + [True] * 2
        assert "could not be written again in 11 tries" in str(store.problem)

    assert "Input/output error" in use_to_a_bad_end(base, scenario, disk)
    # What was answered for is saved where the next start finds it; Signatory is kept out.
    assert SignatoryFolder(base).left_behind
    assert SignatoryFolder(base).read() == {KEY: A}


def test_full_disk_is_unavailable_until_there_is_room(base: Path) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        with files_up_to(slot_offset(0, 0)), pytest.raises(StoreUnavailable, match="File too large"):
            await store.advance(KEY, LATER)
        assert await gather(store.advance(KEY, A), store.advance(KEY, LATER)) == [WatermarkRejected, REPEAT]

    use(base, scenario)
    assert read_marks(base) == {KEY: LATER}


def test_a_write_that_takes_only_a_part_has_failed(base: Path) -> None:
    class Short(FaultyDisk):
        short = False

        def open(self, path: Path) -> Blocks:  # type: ignore[override]
            blocks, disk = super().open(path), self

            class ShortBlocks:
                pread, fdatasync, fstat, close = blocks.pread, blocks.fdatasync, blocks.fstat, blocks.close

                def pwritev(self, pieces: Sequence[bytes], offset: int) -> int:
                    return blocks.pwritev([pieces[0][:100]] if disk.short else pieces, offset)

            return ShortBlocks()

    disk = Short()

    async def scenario(store: FileWatermarkStore) -> None:
        assert await store.advance(KEY, A) is ADVANCE
        disk.short = True
        with pytest.raises(StoreUnavailable, match="No space left on device"):
            await store.advance(KEY, LATER)
        disk.short = False
        assert await gather(store.advance(KEY, A), store.advance(KEY, LATER)) == [WatermarkRejected, REPEAT]

    use(base, scenario, disk)


def test_a_file_that_may_only_be_read_stops_the_start_and_leaves_no_trace(base: Path) -> None:
    before = everything_in(base)

    def refuse(path: Path) -> Blocks:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with (
        pytest.raises(StoreUnavailable, match="Permission denied"),
        held_store(base, in_memory_allowed=True, blocks=refuse),
    ):
        pass
    assert everything_in(base) == before
