"""A disk that fails at every call, in every way, while rights sign: nothing is signed twice, and every answer is durable.

A client without an answer asks at once for another message in the same place, which is the worst that a client can do.
"""

import asyncio
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave_signer.tezos import Right
from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.watermark.file.layout import BLOCK_BYTES, HEADERS, header_offset
from host_backend.watermark.file.place import store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import Mark, MarkKey, is_above
from tests.doubles.faulty_blocks import FaultyDisk, Loss, keep_old
from tests.doubles.watermarks import created, digest, marks_of, opened, some_pkh

SHM = Path("/dev/shm")
BATCHES = 60
KEYS = [MarkKey("NetXdQprcVkpaWU", some_pkh(number), right) for number in range(2) for right in Right]

Place = tuple[MarkKey, int]


def keep_new(_offset: int, _old: bytes, new: bytes) -> bytes:
    return new


def keep_some(offset: int, old: bytes, new: bytes) -> bytes:
    return new if digest(offset)[0] % 2 else old


def tear_record(_offset: int, old: bytes, new: bytes) -> bytes:
    """Half of the record, so that neither is whole."""
    return new[:100] + old[100:]


def tear_in_zeros(_offset: int, old: bytes, new: bytes) -> bytes:
    """A disk that writes 512 bytes at once: the record is in the first of them."""
    return new[:512] + old[512:]


LOSSES: dict[str, Loss] = {
    "old": keep_old,
    "new": keep_new,
    "some": keep_some,
    "torn": tear_record,
    "sector": tear_in_zeros,
}


@pytest.fixture
def room() -> Iterator[Path]:
    folder = Path(f"{SHM if SHM.is_dir() else '/tmp'}/faulty-{os.getpid()}-{random.getrandbits(32)}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


class Run:
    """One life of a store on a disk that fails: 60 batches, until it is cut short."""

    def __init__(self, base: Path, disk: FaultyDisk) -> None:
        self.base = base
        self.disk = disk
        #: What was signed where; at most one message each, for ever.
        self.signed: dict[Place, bytes | None] = {}
        self.highest: dict[MarkKey, Mark] = {}
        self.failures = 0

    async def ask(self, store: FileWatermarkStore, key: MarkKey, asked: Mark) -> bool | None:
        """Return whether it was allowed; None when there was no answer."""
        try:
            await store.advance(key, asked)
        except StoreUnavailable:
            self.failures += 1
            return None
        except WatermarkRejected:
            return False
        assert self.signed.setdefault((key, asked.level), asked.digest) == asked.digest, "DOUBLE SIGNATURE"
        if key not in self.highest or is_above(asked, self.highest[key]):
            self.highest[key] = asked
        return True

    async def go(self, store: FileWatermarkStore, first: int = 0, *, until_failure: bool = False) -> None:
        for level in range(first, first + BATCHES):
            keys = [KEYS[(level * 5 + number) % len(KEYS)] for number in range(1 + level % 3)]
            marks = [Mark(level, 0, digest(key, level)) for key in keys]
            allowed = await asyncio.gather(*(self.ask(store, *asked) for asked in zip(keys, marks, strict=True)))
            if None not in allowed:
                assert all(allowed)
            elif until_failure:
                return
            else:
                await self.insist(store, keys, marks)

    async def insist(self, store: FileWatermarkStore, keys: list[MarkKey], marks: list[Mark]) -> None:
        """Ask for other messages in the places that got no answer, until there is one; then for the first ones."""
        for key, mark in zip(keys, marks, strict=True):
            other = Mark(mark.level, 0, digest("other", key, mark.level))
            for _ in range(20):
                if await self.ask(store, key, other) is not None:
                    break
            else:
                raise AssertionError("the store did not recover")
            await self.ask(store, key, mark)

    async def reopen_and_ask(self) -> bool:
        """Restart, and ask for other messages where something was signed; return whether rights are refused."""
        found = marks_of(self.base).read()
        store = await opened(self.base)
        refused = dict(store.refused)
        for key, mark in self.highest.items():
            if key not in refused:
                assert found.marks[key] == mark or is_above(found.marks[key], mark), "an answer was not durable"
                assert await self.ask(store, key, Mark(mark.level, 0, digest("third", key))) is False
        try:
            await store.aclose()
        except StoreUnavailable:
            assert refused
        return bool(refused)


class DyingDisk(FaultyDisk):
    """A disk on which every call fails from one on."""

    def __init__(self, dies_at: int) -> None:
        super().__init__()
        self.dies_at = dies_at

    def next_fault(self) -> OSError | None:
        fault = super().next_fault()
        return OSError(self.error, os.strerror(self.error)) if self.calls >= self.dies_at else fault


def base_of(room: Path, name: str = "base") -> Path:
    base = room / name
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir()
    return created(base)


def calls_of_a_run(room: Path) -> int:
    disk = FaultyDisk()
    run = Run(base_of(room, "count"), disk)

    async def life() -> None:
        store = await opened(run.base, disk)
        await run.go(store)
        await store.aclose()

    asyncio.run(life())
    assert run.failures == 0
    return disk.calls


def test_every_call_fails_once_and_the_store_goes_on(room: Path) -> None:
    total = calls_of_a_run(room)
    assert total > 150
    opening_failures = 0
    with asyncio.Runner() as runner:
        for number in range(1, total + 1):
            disk = FaultyDisk()
            disk.fail_at = frozenset({number})
            disk.torn_bytes = (0, 100, 512, BLOCK_BYTES)[number % 4]
            run = Run(base_of(room), disk)

            async def life(run: Run = run, disk: FaultyDisk = disk) -> bool:
                try:
                    store = await opened(run.base, disk)
                except StoreUnavailable:
                    store = await opened(run.base, disk)
                    opened_again = True
                else:
                    opened_again = False
                await run.go(store)
                try:
                    await store.aclose()
                except StoreUnavailable:
                    run.failures += 1
                return opened_again

            opening_failures += runner.run(life())
            shutil.rmtree(run.base / "watermark_v2", ignore_errors=True)
            disk.lose_power(store_path(run.base))
            assert not runner.run(run.reopen_and_ask())
            assert len(run.signed) >= BATCHES
    assert 3 < opening_failures < 30


@pytest.mark.parametrize("kind", LOSSES)
def test_power_is_lost_at_every_call(room: Path, kind: str) -> None:
    """A call fails, the store is left there and then, and its disk loses what was not synced."""
    refused = 0
    total = calls_of_a_run(room)
    with asyncio.Runner() as runner:
        for number in range(1, total + 1):
            disk = DyingDisk(number)
            disk.torn_bytes = BLOCK_BYTES
            run = Run(base_of(room), disk)

            async def life(run: Run = run, disk: FaultyDisk = disk) -> None:
                try:
                    store = await opened(run.base, disk)
                except StoreUnavailable:
                    return
                await run.go(store, until_failure=True)
                await asyncio.gather(store.aclose(), return_exceptions=True)

            runner.run(life())
            # What the stop saved in Signatory's files would hide what the store has lost.
            shutil.rmtree(run.base / "watermark_v2", ignore_errors=True)
            disk.lose_power(store_path(run.base), LOSSES[kind])
            was_refused = runner.run(run.reopen_and_ask())
            if kind != "torn":
                assert not was_refused
            refused += was_refused
    assert (refused > 0) is (kind == "torn")


def test_killed_with_marks_in_memory_alone_and_then_the_power_is_lost(room: Path) -> None:
    """What a killed host had not synced is read by the next one, which repeats it: by then it must be on the disk."""
    total = calls_of_a_run(room)
    repeated = 0
    with asyncio.Runner() as runner:
        for number in range(1, total + 1):
            disk = DyingDisk(number)
            disk.torn_bytes = BLOCK_BYTES
            run = Run(base_of(room), disk)

            async def life(run: Run = run, disk: DyingDisk = disk) -> int:
                try:
                    store = await opened(run.base, disk)
                except StoreUnavailable:
                    return 0
                await run.go(store, until_failure=True)
                await asyncio.gather(store.aclose(), return_exceptions=True)
                disk.dies_at = 10**9
                shutil.rmtree(run.base / "watermark_v2", ignore_errors=True)
                store = await opened(run.base, disk)
                answers = [await run.ask(store, key, mark) for key, mark in marks_of(run.base).read().marks.items()]
                # The power goes at this moment: what the stop does is undone below.
                left = store_path(run.base).read_bytes()
                unsynced = disk.unsynced | disk.forgotten
                await store.aclose()
                store_path(run.base).write_bytes(left)
                disk.unsynced, disk.forgotten = unsynced, {}
                return answers.count(True)

            repeated += runner.run(life())
            shutil.rmtree(run.base / "watermark_v2", ignore_errors=True)
            disk.lose_power(store_path(run.base))
            assert not runner.run(run.reopen_and_ask())
    assert repeated > total


def headers_first(offset: int, old: bytes, new: bytes) -> bytes:
    """A disk that writes in another order than it was asked to."""
    return new if offset in {header_offset(copy) for copy in range(HEADERS)} else old


@pytest.mark.parametrize("loss", [keep_old, headers_first, keep_new])
def test_the_power_is_lost_while_a_killed_store_is_opened(room: Path, loss: Loss) -> None:
    """No one is needed, and nothing is refused, whatever is lost of what the opening makes durable."""
    total = calls_of_a_run(room)
    with asyncio.Runner() as runner:
        for number in range(20, total + 1, 17):
            for step in range(1, 12):
                disk = DyingDisk(number)
                disk.torn_bytes = BLOCK_BYTES
                run = Run(base_of(room), disk)

                async def life(run: Run = run, disk: DyingDisk = disk, step: int = step) -> None:
                    store = await opened(run.base, disk)
                    await run.go(store, until_failure=True)
                    await asyncio.gather(store.aclose(), return_exceptions=True)
                    shutil.rmtree(run.base / "watermark_v2", ignore_errors=True)
                    disk.dies_at = disk.calls + step
                    (store_or_error,) = await asyncio.gather(opened(run.base, disk), return_exceptions=True)
                    if isinstance(store_or_error, FileWatermarkStore):
                        await asyncio.gather(store_or_error.aclose(), return_exceptions=True)

                runner.run(life())
                shutil.rmtree(run.base / "watermark_v2", ignore_errors=True)
                disk.lose_power(store_path(run.base), loss)
                assert not runner.run(run.reopen_and_ask())
