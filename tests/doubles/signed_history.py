"""A folder in whose store some rights have signed for a while: what its disk held after each batch, and how it ended."""

import asyncio
import os
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from enclave_signer.tezos import Right
from host_backend.errors import ConfigError, HostError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.file.held import held_store
from host_backend.watermark.file.layout import (
    BLOCK_BYTES,
    COPIES,
    HEADERS,
    header_offset,
    slot_offset,
)
from host_backend.watermark.file.place import STORE_NAME
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from tests.doubles.watermarks import created, digest, marks_of, opened, some_pkh

CHAIN = "NetXdQprcVkpaWU"
#: Rights that sign, in the order of their slots.
KEYS = [MarkKey(CHAIN, some_pkh(number), right) for number in range(3) for right in Right]
BATCHES = 60


class End(StrEnum):
    """How the host that signed has ended."""

    #: In order.
    CLEAN = "clean"
    #: Killed, more than a second after its last batch.
    QUIET = "killed when quiet"
    #: Killed right after its last batch was answered.
    KILLED = "killed"


class Outcome(StrEnum):
    """What the next start made of it."""

    STARTS = "starts"
    REFUSES_RIGHTS = "refuses rights"
    NO_START = "no start"


@dataclass
class History:
    """A folder, and everything that its rights have signed.

    Attributes:
        folder: The folder.
        signed: The highest mark of every right.
        last_batch: The rights of the last batch.
        after: The blocks in use after every batch, by offset.
    """

    folder: Path
    signed: dict[MarkKey, Mark] = field(default_factory=dict)
    last_batch: tuple[MarkKey, ...] = ()
    after: list[dict[int, bytes]] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / STORE_NAME

    def copy(self, folder: Path) -> "History":
        """Copy the folder as it is: what a kill leaves, and what the next damage is done to."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return History(folder, dict(self.signed), self.last_batch, self.after)

    def put_back(self, batches: int, offsets: list[int]) -> bool:
        """Give blocks the content of some batches ago; tell whether that changes anything."""
        older = self.after[-1 - batches]
        with self.store.open("r+b") as file:
            for offset in offsets:
                file.seek(offset)
                now = file.read(BLOCK_BYTES)
                if offset in older and older[offset] != now:
                    file.seek(offset)
                    file.write(older[offset])
                    break
            else:
                return False
            for offset in offsets:
                if offset in older:
                    file.seek(offset)
                    file.write(older[offset])
        return True


def used_offsets(slots: int = len(KEYS)) -> list[int]:
    """Where headers and slots lie."""
    copies = [slot_offset(slot, copy) for slot in range(slots) for copy in range(COPIES)]
    return [*(header_offset(copy) for copy in range(HEADERS)), *copies]


def rights_of(batch: int) -> list[MarkKey]:
    """Which rights sign in a batch: one, two, three, and now and then all of them."""
    if batch % 20 == 3:
        return KEYS
    return [KEYS[(batch * 7 + number) % len(KEYS)] for number in range(1 + batch % 3)]


def sign_for_a_while(folder: Path, end: End) -> History:
    """Make a folder with a store, have its rights sign, and leave it as an end does."""
    work = folder.with_name(f"{folder.name}-at-work")
    work.mkdir(parents=True)
    history = History(created(work))
    with held_store(work, in_memory_allowed=True) as store:
        store.slots.give(KEYS)
        for batch in range(BATCHES):
            history.last_batch = tuple(dict.fromkeys(rights_of(batch)))
            marks = {key: Mark(1000 + batch, 0, digest(key, batch)) for key in history.last_batch}
            store.write(marks)
            history.signed |= marks
            if batch % 5 == 0 and batch < BATCHES - 3:
                store.slots.seal()
            history.after.append(_blocks(history.store))
        if end is End.QUIET:
            store.slots.seal()
        if end is End.CLEAN:
            store.hand_back()
        left = history.copy(folder)
    shutil.rmtree(work)
    return left


def _blocks(path: Path) -> dict[int, bytes]:
    with path.open("rb") as file:
        return {offset: os.pread(file.fileno(), BLOCK_BYTES, offset) for offset in used_offsets()}


def other(mark: Mark) -> Mark:
    """Another message at the same place."""
    return Mark(mark.level, mark.round, digest("another message", mark.level, mark.round))


async def ask_for_doubles(history: History) -> Outcome:
    """Start on the folder, ask every right for another message where it has signed, and stop.

    Raises:
        AssertionError: One of them was allowed.
        ConfigError: There is no start.
    """
    store = await opened(history.folder)
    asked = await asyncio.gather(
        *(store.advance(key, other(mark)) for key, mark in history.signed.items()), return_exceptions=True
    )
    refused = bool(store.refused)
    try:
        await store.aclose()
    except StoreUnavailable:
        assert refused
    for key, answer in zip(history.signed, asked, strict=True):
        assert not isinstance(answer, Verdict), f"DOUBLE SIGNATURE: {key}"
        expected = StoreUnavailable if key in store.refused else WatermarkRejected
        assert isinstance(answer, expected), (key, answer)
    return Outcome.REFUSES_RIGHTS if refused else Outcome.STARTS


def outcome_of(history: History) -> Outcome:
    """Start on a folder, twice; nothing may be signed twice, every refusal has a way back, and the way back works."""
    try:
        outcome = asyncio.run(ask_for_doubles(history))
    except ConfigError as error:
        assert_says_the_way_back(error)
        marks_of(history.folder).rebuild(Rebuilt([key.pkh for key in KEYS], [CHAIN], 5000), ".damaged")
        assert asyncio.run(ask_for_doubles(history)) is Outcome.STARTS
        asyncio.run(sign_at(history, 5001))
        return Outcome.NO_START
    # What was found at the first start does not get lost at the next one.
    assert asyncio.run(ask_for_doubles(history)) is outcome
    if outcome is Outcome.REFUSES_RIGHTS:
        mend(history)
    asyncio.run(sign_at(history, 5001))
    return outcome


def mend(history: History) -> None:
    """Raise every right that is refused."""
    admin = marks_of(history.folder)
    for key, known in admin.read().refused.items():
        if known is not None:
            for level in (known.level, known.level - 1):
                try:
                    admin.raise_mark(key, Mark(level, 2**31 - 1, None))
                except ConfigError as error:
                    assert_no_bad_advice(error)
                else:
                    raise AssertionError("raised to what may have been signed")
        admin.raise_mark(key, Mark(5000, 0, None))
    assert not admin.read().refused
    assert asyncio.run(ask_for_doubles(history)) is Outcome.STARTS


async def sign_at(history: History, level: int) -> None:
    """Every right signs again, above everything."""
    store = await opened(history.folder)
    for key in history.signed:
        assert await store.advance(key, Mark(level, 0, digest(key, level))) is Verdict.ADVANCE
    await store.aclose()


def assert_says_the_way_back(error: HostError) -> None:
    """A refused start names the command that leads on, and no other way."""
    assert "watermark rebuild --above-level N" in str(error)
    assert_no_bad_advice(error)


def assert_no_bad_advice(error: HostError) -> None:
    """No text may send anybody to take away what keeps a double signature away."""
    assert "remov" not in str(error)
    assert "delet" not in str(error)
