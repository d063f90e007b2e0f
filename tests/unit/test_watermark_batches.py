"""Requests that come together: one sync for all, one outcome, and a caller that leaves disturbs no other."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.durable import locked
from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.metrics import Metrics
from host_backend.watermark.file import store as store_module
from host_backend.watermark.file.place import folder_lock
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from tests.doubles.faulty_blocks import FaultyDisk
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
    gather,
    open_and_close,
    opened,
    read_marks,
    some_pkh,
    use,
)

pytestmark = pytest.mark.usefixtures("never_quiet")

#: Of one batch in which every right has a slot; and of one with new rights, however many: their identities, the two
#: headers that count them, the marks.
SYNCS, SYNCS_OF_NEW_RIGHTS = 1, 4


@pytest.fixture
def marked(base: Path) -> Path:
    """A folder in which two rights have signed."""
    for key in (KEY, OTHER):
        advance(base, key, Mark(1, 0, digest(key)))
    return base


async def stall(disk: FaultyDisk) -> None:
    """Wait until the store is in the middle of a write."""
    await asyncio.to_thread(disk.stalled.wait, 60)


async def let_tasks_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def ask_while_stalled(
    store: FileWatermarkStore, disk: FaultyDisk, asked: Iterable[tuple[MarkKey, Mark]]
) -> tuple["asyncio.Task[Verdict]", list["asyncio.Task[Verdict]"]]:
    """Ask for A, and for others while A is being written; no one is answered before the disk goes on."""
    disk.gate.clear()
    first = asyncio.create_task(store.advance(KEY, A))
    await stall(disk)
    later = [asyncio.create_task(store.advance(key, mark)) for key, mark in asked]
    await let_tasks_run()
    assert not any(task.done() for task in (first, *later))
    return first, later


def test_repeat_waits_for_the_write_in_flight(marked: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        syncs = disk.syncs
        first, later = await ask_while_stalled(store, disk, [(KEY, A), (KEY, B)])
        disk.gate.set()
        assert await gather(first, *later) == [ADVANCE, REPEAT, WatermarkRejected]
        assert disk.syncs - syncs == SYNCS

    use(marked, scenario, disk)


def test_those_who_wait_share_one_sync(marked: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        syncs = disk.syncs
        asked = [(KEY, LATER), (KEY, LATER), (KEY, A), (OTHER, A), (OTHER, LATER), (OTHER, B)]
        first, later = await ask_while_stalled(store, disk, asked)
        disk.gate.set()
        assert await first is ADVANCE
        assert await gather(*later) == [ADVANCE, REPEAT, WatermarkRejected, ADVANCE, ADVANCE, WatermarkRejected]
        assert disk.syncs - syncs == 2 * SYNCS

    use(marked, scenario, disk)
    assert read_marks(marked) == {KEY: LATER, OTHER: LATER}


def test_what_is_asked_in_one_pass_of_the_loop_is_one_batch(marked: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        for level in range(20, 40):
            syncs = disk.syncs
            asked = [store.advance(key, Mark(level, 0, digest(level))) for key in (KEY, OTHER)]
            assert await gather(*asked) == [ADVANCE, ADVANCE]
            assert disk.syncs - syncs == SYNCS

    use(marked, scenario, disk)


def test_of_a_right_that_moves_often_in_a_batch_one_record_is_written(marked: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        calls = disk.calls
        first, later = await ask_while_stalled(store, disk, [(KEY, Mark(20 + n, 0, digest(n))) for n in range(10)])
        disk.gate.set()
        assert await gather(first, *later) == [ADVANCE] * 11
        # Of each batch one write and one sync.
        assert disk.calls - calls == 4

    use(marked, scenario, disk)


def test_first_marks_of_many_rights_share_their_syncs(base: Path) -> None:
    disk = FaultyDisk()
    keys = [MarkKey(KEY.chain_id, some_pkh(number), right) for number in range(30) for right in Right]

    async def scenario(store: FileWatermarkStore) -> None:
        syncs = disk.syncs
        first, later = await ask_while_stalled(store, disk, [(key, A) for key in keys])
        disk.gate.set()
        assert await gather(first, *later) == [ADVANCE] * 91
        assert disk.syncs - syncs == 2 * SYNCS_OF_NEW_RIGHTS

    use(base, scenario, disk)
    assert read_marks(base) == dict.fromkeys([KEY, *keys], A)


def test_repeats_and_refusals_write_nothing(base: Path) -> None:
    advance(base, KEY, A)
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        calls = disk.calls
        assert await gather(store.advance(KEY, A), store.advance(KEY, B)) == [REPEAT, WatermarkRejected]
        assert disk.calls == calls

    use(base, scenario, disk)


def test_caller_that_leaves_during_a_write_loses_nothing(base: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        leaver, (stayer,) = await ask_while_stalled(store, disk, [(OTHER, A)])
        leaver.cancel()
        assert await gather(leaver) == [asyncio.CancelledError]
        disk.gate.set()
        assert await stayer is ADVANCE
        assert await store.advance(KEY, A) is REPEAT

    use(base, scenario, disk)


def test_closing_answers_those_who_wait_for_a_write(base: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        first, later = await ask_while_stalled(store, disk, [(KEY, A), (OTHER, A)])
        closing = asyncio.create_task(store.aclose())
        await let_tasks_run()
        assert not closing.done()
        disk.gate.set()
        assert await gather(first, *later) == [ADVANCE, REPEAT, ADVANCE]
        await closing

    use(base, scenario, disk)


def test_leaving_while_it_opens_lets_go_of_the_folder(base: Path) -> None:
    async def run() -> None:
        opening = asyncio.create_task(opened(base))
        await asyncio.sleep(0)
        opening.cancel()
        assert await asyncio.gather(opening, return_exceptions=True)
        with locked(folder_lock(base)):
            pass

    asyncio.run(run())
    open_and_close(base)


# Failing disks


def test_whole_batch_fails_with_its_write(marked: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        first, later = await ask_while_stalled(store, disk, [(KEY, A), (KEY, LATER), (OTHER, A)])
        # The write that waits; and the next batch, which has to write it again before it is judged.
        disk.fail_next = 2
        disk.gate.set()
        assert await gather(first) == [StoreUnavailable]
        assert await gather(*later) == [StoreUnavailable] * 3
        # The first one has moved all the same, once that was known.
        asked = [(KEY, A), (KEY, B), (OTHER, A), (KEY, LATER)]
        assert await gather(*(store.advance(*one) for one in asked)) == [REPEAT, WatermarkRejected, ADVANCE, ADVANCE]

    use(marked, scenario, disk)
    assert read_marks(marked) == {KEY: LATER, OTHER: A}


def test_a_repeat_of_what_is_in_doubt_waits_until_it_is_known(marked: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        first, (repeat, other) = await ask_while_stalled(store, disk, [(KEY, A), (KEY, B)])
        disk.fail_next = 1
        disk.gate.set()
        assert await gather(first) == [StoreUnavailable]
        # Judged when the mark was written again.
        assert await gather(repeat, other) == [REPEAT, WatermarkRejected]
        assert store.problem is None

    use(marked, scenario, disk)


def test_every_batch_that_writes_is_measured(base: Path) -> None:
    metrics = Metrics(dict, "file")

    async def scenario() -> None:
        disk = FaultyDisk()
        store = await FileWatermarkStore.open(
            base, in_memory_allowed=True, blocks=disk.open, writing=metrics.writing_marks
        )
        assert await store.advance(KEY, A) is ADVANCE
        assert await gather(store.advance(KEY, B), store.advance(KEY, A)) == [WatermarkRejected, REPEAT]
        disk.fail_next = 1
        assert await gather(store.advance(KEY, LATER)) == [StoreUnavailable]
        await store.aclose()

    asyncio.run(scenario())
    assert metrics.writes.values == {("file", "write", "", "success"): 1, ("file", "write", "", "error"): 1}
    (row,) = metrics.write_seconds.values.values()
    assert sum(row[:-1]) == 2
    assert row[-1] > 0


def test_ever_so_many_requests_are_answered_in_order(base: Path) -> None:
    disk = FaultyDisk()

    async def scenario(store: FileWatermarkStore) -> None:
        count = 2 * store_module._MAX_BATCH + 7
        asked = [(KEY, Mark(100 + level, 0, digest(level))) for level in range(count)]
        syncs = disk.syncs
        first, later = await ask_while_stalled(store, disk, asked)
        disk.gate.set()
        assert await gather(first, *later) == [ADVANCE] * (count + 1)
        assert disk.syncs - syncs == SYNCS_OF_NEW_RIGHTS + 3 * SYNCS

    use(base, scenario, disk)
