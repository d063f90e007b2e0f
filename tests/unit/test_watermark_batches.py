"""Requests that come together: one write for all, one outcome, and whoever leaves disturbs nobody."""

import asyncio
from pathlib import Path

import pytest

from host_backend.durable import locked
from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.metrics import Metrics
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, read_marks
from host_backend.watermark.rule import MarkKey
from tests.doubles.failing_sqlite import FailingSqlite
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
    some_chain,
    use,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create(tmp_path / STORE_NAME)
    return tmp_path / STORE_NAME


async def stall(disk: FailingSqlite) -> None:
    """Wait until the store is in the middle of a write."""
    await asyncio.to_thread(disk.stalled.wait, 60)


async def let_tasks_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_repeat_waits_for_the_write_in_flight(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.gate.clear()
        first = asyncio.create_task(store.advance(KEY, A))
        await stall(disk)
        later = [asyncio.create_task(store.advance(KEY, asked)) for asked in (A, B)]
        await let_tasks_run()
        assert not any(task.done() for task in (first, *later))
        disk.gate.set()
        assert await gather(first, *later) == [ADVANCE, REPEAT, WatermarkRejected]
        assert disk.writes == 1

    use(path, scenario, disk)


def test_those_who_wait_share_one_write(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.gate.clear()
        first = asyncio.create_task(store.advance(KEY, A))
        await stall(disk)
        asked = [(KEY, LATER), (KEY, LATER), (KEY, A), (OTHER, A), (OTHER, LATER), (OTHER, B)]
        later = [asyncio.create_task(store.advance(key, mark)) for key, mark in asked]
        await let_tasks_run()
        disk.gate.set()
        assert await first is ADVANCE
        assert await gather(*later) == [ADVANCE, REPEAT, WatermarkRejected, ADVANCE, ADVANCE, WatermarkRejected]
        assert disk.writes == 2

    use(path, scenario, disk)
    assert read_marks(path) == {KEY: LATER, OTHER: LATER}


def test_repeats_and_refusals_write_nothing(path: Path) -> None:
    advance(path, KEY, A)
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        assert await gather(store.advance(KEY, A), store.advance(KEY, B)) == [REPEAT, WatermarkRejected]
        assert disk.writes == 0

    use(path, scenario, disk)


def test_caller_that_leaves_during_a_write_loses_nothing(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.gate.clear()
        leaver = asyncio.create_task(store.advance(KEY, A))
        await stall(disk)
        stayer = asyncio.create_task(store.advance(OTHER, A))
        await let_tasks_run()
        leaver.cancel()
        assert await gather(leaver) == [asyncio.CancelledError]
        disk.gate.set()
        assert await stayer is ADVANCE
        assert await store.advance(KEY, A) is REPEAT

    use(path, scenario, disk)


def test_leaving_while_it_opens_lets_go_of_the_folder(path: Path) -> None:
    async def run() -> None:
        opening = asyncio.create_task(FileWatermarkStore.open(path))
        await asyncio.sleep(0)
        opening.cancel()
        assert await asyncio.gather(opening, return_exceptions=True)
        with locked(path.with_suffix(".lock")):
            pass

    asyncio.run(run())


# Failing disks


def test_write_that_failed_signs_nothing_and_is_forgotten(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.fail_before = 1
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await store.advance(KEY, A)
        assert read_marks(path) == {}
        assert await gather(store.advance(KEY, B), store.advance(KEY, A)) == [ADVANCE, WatermarkRejected]

    use(path, scenario, disk)


def test_write_that_failed_after_all_was_written_counts(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.fail_after = 1
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            await store.advance(KEY, A)
        assert await gather(store.advance(KEY, B), store.advance(KEY, A)) == [WatermarkRejected, REPEAT]

    use(path, scenario, disk)


def test_whole_batch_fails_with_its_write(path: Path) -> None:
    disk = FailingSqlite()

    async def scenario(store: FileWatermarkStore) -> None:
        disk.gate.clear()
        first = asyncio.create_task(store.advance(KEY, A))
        await stall(disk)
        later = [asyncio.create_task(store.advance(*asked)) for asked in ((KEY, A), (KEY, B), (OTHER, A))]
        await let_tasks_run()
        disk.fail_before = 2
        disk.gate.set()
        assert await gather(first) == [StoreUnavailable]
        # Judged against nothing stored, since the first write failed; then their own write fails.
        assert await gather(*later) == [StoreUnavailable] * 3
        assert await gather(store.advance(KEY, B), store.advance(OTHER, A)) == [ADVANCE, ADVANCE]

    use(path, scenario, disk)


def test_a_chain_whose_first_mark_was_not_written_does_not_count(path: Path) -> None:
    disk = FailingSqlite()
    keys = [MarkKey(some_chain(number), KEY.pkh, KEY.right) for number in range(33)]

    async def scenario(store: FileWatermarkStore) -> None:
        disk.gate.clear()
        first = asyncio.create_task(store.advance(keys[0], A))
        await stall(disk)
        later = [asyncio.create_task(store.advance(key, A)) for key in keys[1:16]]
        await let_tasks_run()
        disk.fail_before = 2
        disk.gate.set()
        assert await gather(first, *later) == [StoreUnavailable] * 16
        assert await gather(*(store.advance(key, A) for key in keys[16:])) == [ADVANCE] * 16 + [WatermarkRejected]

    use(path, scenario, disk)


def test_every_write_is_measured(path: Path) -> None:
    metrics = Metrics(dict, "file")

    async def scenario() -> None:
        disk = FailingSqlite()
        store = await FileWatermarkStore.open(path, connect=disk.connect, writing=metrics.writing_marks)
        assert await store.advance(KEY, A) is ADVANCE
        assert await gather(store.advance(KEY, B), store.advance(KEY, A)) == [WatermarkRejected, REPEAT]
        disk.fail_before = 1
        assert await gather(store.advance(KEY, LATER)) == [StoreUnavailable]
        await store.aclose()

    asyncio.run(scenario())
    assert metrics.writes.values == {("file", "write", "", "success"): 1, ("file", "write", "", "error"): 1}
    ((labels, row),) = metrics.write_seconds.values.items()
    assert metrics.write_seconds.buckets(labels)[-1] == ("+Inf", 2)
    assert row[-1] > 0
