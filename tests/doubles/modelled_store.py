"""A watermark store beside a model of it: the law in its own words, and what the store has answered for.

After a failed write, a kill or a loss of power the store's marks are unknown to its callers: the model then takes what
is found in the file, which must be at or above every mark answered for, and must have been asked for.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Set
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize

from enclave_signer.tezos.consensus import Right
from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.watermark import rule as watermark_rule
from host_backend.watermark.file import store as store_room
from host_backend.watermark.file.admin import FileMarks
from host_backend.watermark.file.blocks import PosixBlocks
from host_backend.watermark.file.opening import Slot, read_image
from host_backend.watermark.file.place import store_path
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from tests.doubles.faulty_blocks import FaultyDisk
from tests.doubles.watermarks import created, marks_of, opened, some_chain, some_pkh

MAX_LEVEL_JUMP = 6
#: How many chains a key, and a store, gets marks on by being asked: fewer than really, so that they are met all the time.
CHAINS_PER_KEY, CHAINS = 3, 5
SHM = Path("/dev/shm")
KEYS = [
    MarkKey("NetXo5iVw1vBoxM", pkh, right)
    for pkh in ("tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", "tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME")
    for right in (Right.BLOCK, Right.ATTESTATION)
]

#: Chains that clients make up, and keys that they ask for on them.
MADE_UP = [some_chain(number) for number in range(8)]
PKHS = [KEYS[0].pkh, some_pkh(1), some_pkh(2)]

Request = tuple[MarkKey, Mark]
Answer = Verdict | BaseException


def digest(level: int, round_: int, message: int) -> bytes:
    """Differs by message, level and round, as digests do; message 3 lies: the same digest everywhere."""
    text = b"same everywhere" if message == 3 else b"%d %d %d" % (level, round_, message)
    return text.ljust(32)


marks = st.builds(
    lambda level, round_, message: Mark(level, round_, digest(level, round_, message)),
    st.integers(-1, 14),
    st.integers(-1, 2),
    st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
)
some_keys = st.sampled_from(KEYS) | st.builds(
    MarkKey, st.sampled_from(MADE_UP), st.sampled_from(PKHS), st.sampled_from(Right)
)
requests = st.tuples(some_keys, marks)
batches = st.lists(requests, min_size=1, max_size=12)


def has_room(marked: Set[MarkKey], key: MarkKey) -> bool:
    """Whether a right that has no mark may get one."""
    of_key = {other.chain_id for other in marked if other.pkh == key.pkh}
    of_all = {other.chain_id for other in marked}
    if key.chain_id in of_key:
        return True
    return len(of_key) < CHAINS_PER_KEY and (key.chain_id in of_all or len(of_all) < CHAINS)


def lawful(marks: Mapping[MarkKey, Mark], given: Set[MarkKey], key: MarkKey, asked: Mark) -> Verdict | None:
    """What the law says; None is a refusal."""
    stored = marks.get(key)
    if asked.level < 0 or asked.round < 0:
        return None
    if stored is None:
        return Verdict.ADVANCE if has_room(given, key) else None
    if stored.digest is not None and stored.digest == asked.digest:
        return Verdict.REPEAT if (stored.level, stored.round) == (asked.level, asked.round) else None
    if asked.level > stored.level + MAX_LEVEL_JUMP:
        return None
    if asked.level > stored.level or (asked.level == stored.level and asked.round > stored.round):
        return Verdict.ADVANCE
    return None


class ModelledStore(RuleBasedStateMachine):
    """One store, opened and lost again and again, and all that is known of it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        # In memory where that can be had: thousands of syncs take minutes on a disk, and losses are simulated.
        self.root = Path(tempfile.mkdtemp(prefix="watermark-machine-", dir="/dev/shm" if SHM.is_dir() else None))
        self.disk = FaultyDisk()
        self.model: dict[MarkKey, Mark] = {}
        #: Rights that are refused, and the known bounds of their marks.
        self.refused: dict[MarkKey, Mark] = {}
        #: Rights that have a slot, with a mark or without: their chains count.
        self.given: set[MarkKey] = set()
        #: Every message answered for, by its place: at most one each, for ever.
        self.signed: dict[tuple[MarkKey, int, int], bytes | None] = {}
        self.lives = 0
        self.limits = ExitStack()
        for name, limit in (("MAX_CHAINS_PER_KEY", CHAINS_PER_KEY), ("MAX_CHAINS", CHAINS)):
            self.limits.enter_context(patch.object(watermark_rule, name, limit))
        # Quiet times come when `be_quiet` says so, not by the clock.
        self.limits.enter_context(patch.object(store_room, "_QUIET_S", 3600.0))

    @initialize()
    def start(self) -> None:
        self.base = self.root / "first"
        self.base.mkdir()
        created(self.base)
        self.open()

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        shutil.rmtree(self.root)
        self.limits.close()

    def slots(self) -> list[Slot]:
        file = PosixBlocks.reading(store_path(self.base))
        try:
            return read_image(file, settled=False).slots
        finally:
            file.close()

    def open(self) -> None:
        self.store = self.runner.run(opened(self.base, self.disk, max_level_jump=MAX_LEVEL_JUMP))
        assert self.store.refused.keys() == self.refused.keys()
        self.given = {slot.record.key for slot in self.slots()}

    def admin(self) -> FileMarks:
        return FileMarks(self.base, in_memory_allowed=True, blocks=self.disk.open)

    def close(self) -> None:
        try:
            self.runner.run(self.store.aclose())
        except StoreUnavailable:
            assert self.refused or self.changed
        self.changed = False

    changed = False

    def read_marks(self) -> dict[MarkKey, Mark]:
        stored = marks_of(self.base).read()
        assert stored.refused.keys() == self.refused.keys()
        return dict(stored.marks)

    # What was answered

    def check_lawful(self, batch: list[Request], answers: list[Answer]) -> None:
        """Nothing failed, so every answer is known beforehand."""
        for (key, asked), answer in zip(batch, answers, strict=True):
            if key in self.refused:
                assert isinstance(answer, StoreUnavailable), answer
                continue
            expected = lawful(self.model, self.given, key, asked)
            if expected is None:
                assert isinstance(answer, WatermarkRejected), answer
            else:
                assert answer is expected
            if expected is Verdict.ADVANCE:
                self.model[key] = asked
                self.given.add(key)
        self.record(batch, answers)

    def record(self, batch: list[Request], answers: list[Answer]) -> None:
        """Whatever happened, no second message at one place."""
        for (key, asked), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Verdict):
                assert key not in self.refused
                place = (key, asked.level, asked.round)
                assert self.signed.setdefault(place, asked.digest) == asked.digest

    def adopt(self, asked: list[Request]) -> None:
        """Take the marks that are in the file, if they can be there."""
        found = self.read_marks()
        self.given = {slot.record.key for slot in self.slots()}
        for key in {*found, *self.model, *(key for key, _, _ in self.signed)} - self.refused.keys():
            signed = [place[1:] for place in self.signed if place[0] == key]
            if key in found:
                assert found[key] == self.model.get(key) or (key, found[key]) in asked
                assert all((found[key].level, found[key].round) >= place for place in signed)
            else:
                assert not signed
        self.model = found

    async def ask(self, batch: list[Request]) -> list[Answer]:
        return await asyncio.gather(*(self.store.advance(*request) for request in batch), return_exceptions=True)

    async def settle(self) -> None:
        """Have the store write again the copies in doubt, before it refuses this."""
        key = next((key for key in KEYS if key not in self.refused), None)
        if key is not None:
            with pytest.raises(WatermarkRejected):
                await self.store.advance(key, Mark(-1, -1, None))
