"""A watermark store under everything at once: it never allows two messages where one is due, nor refuses one that is due.

- A damaged copy refuses its right, and no other, until the right is raised.
- Signatory's files are written by export and at every stop, changed by Signatory between two runs and, against all
  rules, in the midst of one, and read again at every start.
- The expected outcome: `tests/doubles/modelled_store.py`.
"""

import asyncio
import shutil
from unittest.mock import patch

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from enclave_signer.tezos.consensus import Right
from host_backend.errors import ConfigError, StoreUnavailable, WatermarkRejected
from host_backend.watermark.file import store as store_room
from host_backend.watermark.file.layout import BLOCK_BYTES, slot_offset
from host_backend.watermark.file.place import store_path
from host_backend.watermark.rule import Mark, MarkKey, Verdict, is_above, merged
from host_backend.watermark.signatory.layouts import FOLDER, read_signatory_marks, write_signatory_marks
from tests.doubles.faulty_blocks import keep_old
from tests.doubles.modelled_store import (
    KEYS,
    MADE_UP,
    PKHS,
    Answer,
    ModelledStore,
    Request,
    batches,
    digest,
    lawful,
    marks,
    requests,
    some_keys,
)


class WatermarkMachine(ModelledStore):
    """What can happen."""

    @rule(request=requests)
    def ask_one(self, request: Request) -> None:
        self.check_lawful([request], self.runner.run(self.ask([request])))

    @rule(batch=batches)
    def ask_together(self, batch: list[Request]) -> None:
        self.check_lawful(batch, self.runner.run(self.ask(batch)))

    @rule(pkh=st.sampled_from(PKHS), first=st.integers(0, 7), right=st.sampled_from(Right))
    def ask_on_chains_that_are_made_up(self, pkh: str, first: int, right: Right) -> None:
        asked = Mark(1, 0, digest(1, 0, 0))
        batch = [(MarkKey(chain_id, pkh, right), asked) for chain_id in MADE_UP[first:]]
        self.check_lawful(batch, self.runner.run(self.ask(batch)))

    @rule(batch=batches, leaving=st.sets(st.integers(0, 11)), turns=st.integers(0, 3))
    def some_callers_leave(self, batch: list[Request], leaving: set[int], turns: int) -> None:
        async def scenario() -> list[Answer]:
            tasks = [asyncio.create_task(self.store.advance(*request)) for request in batch]
            # All have asked after one turn; the others leave the writer some time.
            for _ in range(1 + turns):
                await asyncio.sleep(0)
            for index in leaving & set(range(len(tasks))):
                tasks[index].cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            # Judged after all of them, so that what those who left asked for is done, whatever comes next.
            await asyncio.gather(self.store.advance(KEYS[0], Mark(-1, -1, None)), return_exceptions=True)
            return answers

        answers = self.runner.run(scenario())
        for index, (key, asked) in enumerate(batch):
            if key in self.refused:
                assert isinstance(answers[index], StoreUnavailable | asyncio.CancelledError)
                continue
            expected = lawful(self.model, self.given, key, asked)
            if isinstance(answers[index], asyncio.CancelledError):
                assert index in leaving
            else:
                assert answers[index] is expected or isinstance(answers[index], WatermarkRejected)
                assert isinstance(answers[index], Verdict) == (expected is not None)
            if expected is Verdict.ADVANCE:
                self.model[key] = asked
                self.given.add(key)
        self.record(batch, answers)

    @rule()
    def be_quiet(self) -> None:
        """A second passes without a request: the file is sealed."""

        async def scenario() -> None:
            with patch.object(store_room, "_QUIET_S", 0.0):
                await self.settle()
                sealed = self.disk.syncs
                await self.settle()
                await self.settle()
                assert self.disk.syncs >= sealed
            await self.settle()

        self.runner.run(scenario())

    @rule()
    def restart(self) -> None:
        self.close()
        assert self.read_marks() == self.model
        self.open()

    @rule(batch=batches, first=st.integers(1, 5), count=st.integers(1, 4), torn=st.sampled_from([0, 100, BLOCK_BYTES]))
    def disk_fails(self, batch: list[Request], first: int, count: int, torn: int) -> None:
        calls = self.disk.calls
        self.disk.fail_at = frozenset(range(calls + first, calls + first + count))
        self.disk.torn_bytes = torn
        answers = self.runner.run(self.ask(batch))
        self.disk.fail_at = frozenset()
        assert all(isinstance(answer, Verdict | WatermarkRejected | StoreUnavailable) for answer in answers)
        self.record(batch, answers)
        self.runner.run(self.settle())
        self.adopt(batch)

    def go_on_with_a_copy(self, batch: list[Request], turns: int) -> list[Answer]:
        """Copy the folder in the midst of a batch and go on with the copy; what was answered later never was."""
        self.lives += 1
        folder = self.root / f"life-{self.lives}"

        async def scenario() -> list[Answer]:
            await self.settle()
            tasks = [asyncio.create_task(self.store.advance(*request)) for request in batch]
            for _ in range(turns):
                await asyncio.sleep(0)
            answered = [task.done() for task in tasks]
            with self.disk.frozen():
                shutil.copytree(self.base, folder)
                self.left = dict(self.disk.unsynced), dict(self.disk.forgotten)
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            return [answer if done else TimeoutError() for answer, done in zip(answers, answered, strict=True)]

        answers = self.runner.run(scenario())
        self.close()
        self.base = folder
        self.disk.unsynced, self.disk.forgotten = self.left
        return answers

    @rule(batch=batches, turns=st.integers(0, 4))
    def kill(self, batch: list[Request], turns: int) -> None:
        answers = self.go_on_with_a_copy(batch, turns)
        self.open()
        self.record(batch, answers)
        self.adopt(batch)

    @rule(batch=batches, turns=st.integers(0, 4), lost=st.sampled_from(["all", "some", "nothing"]))
    def lose_power(self, batch: list[Request], turns: int, lost: str) -> None:
        answers = self.go_on_with_a_copy(batch, turns)
        kept = {"all": (), "some": range(0, 2**30, 2 * BLOCK_BYTES), "nothing": range(0, 2**30, BLOCK_BYTES)}[lost]
        self.disk.lose_power(
            store_path(self.base), lambda offset, old, new: new if offset in kept else keep_old(offset, old, new)
        )
        self.open()
        self.record(batch, answers)
        self.adopt(batch)

    @rule(number=st.integers(0, 30), copy=st.integers(0, 1), place=st.integers(0, BLOCK_BYTES - 1))
    def damage_one_copy(self, number: int, copy: int, place: int) -> None:
        # No preconditions: what there is depends on threads, and examples may not.
        if not self.model or len(self.refused) == 2:
            return
        self.close()
        slots = self.slots()
        slot = slots[number % len(slots)]
        offset = slot_offset(slot.record.slot, copy)
        self.disk.unsynced.pop(offset, None)
        self.disk.forgotten.pop(offset, None)
        with store_path(self.base).open("r+b") as stream:
            stream.seek(offset + place)
            (byte,) = stream.read(1)
            stream.seek(-1, 1)
            stream.write(bytes([byte ^ 4]))
        key = slot.record.key
        other = slot.copies[1 - copy]
        assert other is not None
        self.model.pop(key, None)
        # What was signed there is known from the copy that is left, if at all.
        self.refused[key] = other.mark or Mark(-1, 0, None)
        self.open()

    @rule(above=st.integers(0, 12))
    def mend_one_right(self, above: int) -> None:
        if not self.refused:
            return
        key, known = next(iter(self.refused.items()))
        signed = max((level for other, level, _ in self.signed if other == key), default=-1)
        self.close()
        known = merged(read_signatory_marks(self.base).get(key), known)
        for level in (known.level, known.level - 3):
            if level >= 0:
                with pytest.raises(ConfigError, match="damaged"):
                    self.admin().raise_mark(key, Mark(level, 0, None))
        # A person raises it above everything that was signed, and above the known marks.
        level = max(signed, known.level) + 1 + above
        self.admin().raise_mark(key, Mark(level, 0, None))
        del self.refused[key]
        self.model[key] = Mark(level, 0, None)
        assert self.read_marks() == self.model
        self.open()

    @rule(key=some_keys, level=st.integers(0, 20), round_=st.integers(0, 2))
    def raise_offline(self, key: MarkKey, level: int, round_: int) -> None:
        if key in self.refused:
            return
        self.close()
        stored = self.model.get(key)
        higher = stored is None or (level, round_) > (stored.level, stored.round)
        try:
            self.admin().raise_mark(key, Mark(level, round_, None))
        except ConfigError:
            assert not higher
        else:
            assert higher
            self.model[key] = Mark(level, round_, None)
        assert self.read_marks() == self.model
        self.open()

    @rule(key=st.sampled_from(KEYS), fails=st.booleans(), message=st.integers(0, 2))
    def ask_again_while_the_mark_is_written(self, key: MarkKey, fails: bool, message: int) -> None:
        stored = self.model.get(key)
        level = 0 if stored is None else stored.level + 1
        asked = Mark(level, 0, digest(level, 0, message))
        other = Mark(level, 0, digest(level, 0, message + 10))
        if stored is None or key in self.refused or lawful(self.model, self.given, key, asked) is None:
            self.check_lawful([(key, asked)], self.runner.run(self.ask([(key, asked)])))
            return

        async def scenario() -> list[Answer]:
            self.disk.stalled.clear()
            self.disk.gate.clear()
            first = asyncio.create_task(self.store.advance(key, asked))
            await asyncio.to_thread(self.disk.stalled.wait, 60)
            later = [asyncio.create_task(self.store.advance(key, mark)) for mark in (asked, other)]
            for _ in range(3):
                await asyncio.sleep(0)
            assert not any(task.done() for task in (first, *later))
            self.disk.fail_next = int(fails)
            self.disk.gate.set()
            return await asyncio.gather(first, *later, return_exceptions=True)

        first, again, another = answers = self.runner.run(scenario())
        # A mark whose write failed is written again, and has moved; unless a header failed before it.
        assert isinstance(first, StoreUnavailable) if fails else first is Verdict.ADVANCE
        assert again is Verdict.REPEAT or (fails and again is Verdict.ADVANCE)
        assert isinstance(another, WatermarkRejected)
        self.model[key] = asked
        self.record([(key, asked), (key, asked), (key, other)], answers)

    @rule()
    def export(self) -> None:
        self.close()
        if self.refused:
            with pytest.raises(StoreUnavailable, match="no marks are handed back"):
                self.admin().export()
        else:
            self.admin().export()
            assert read_signatory_marks(self.base) == self.model
        self.open()
        assert self.read_marks() == self.model

    @rule(
        edits=st.dictionaries(st.sampled_from(KEYS), st.none() | marks, min_size=1),
        between=st.booleans(),
        chains=st.sampled_from([0, 0, 0, 2, 7]),
    )
    def signatory_writes_its_files(self, edits: dict[MarkKey, Mark | None], between: bool, chains: int) -> None:
        """It signs, or someone lowers or removes its marks; between two runs, or in the midst of one.

        It keeps marks on as many chains as it is asked for: beyond what the store would give, they are kept all the same.
        """
        if between:
            self.close()
        theirs = read_signatory_marks(self.base)
        for key, mark in edits.items():
            if mark is None:
                theirs.pop(key, None)
            elif mark.level >= 0 and mark.round >= 0:
                theirs[key] = mark
        for chain_id in MADE_UP[len(MADE_UP) - chains :]:
            theirs.setdefault(MarkKey(chain_id, PKHS[1], Right.BLOCK), Mark(1, 0, digest(1, 0, 0)))
        (self.base / FOLDER / f"{KEYS[0].chain_id}.json").write_text("{}")
        write_signatory_marks(self.base, theirs)
        if not between:
            asked = [(key, Mark(20, 0, digest(20, 0, 0))) for key in KEYS]
            assert all(isinstance(answer, StoreUnavailable) for answer in self.runner.run(self.ask(asked)))
            self.changed = True
            self.close()
        for key, mark in theirs.items():
            if key in self.refused:
                # Only a person mends a right that was damaged; what Signatory has signed of it is signed all the same.
                self.signed.setdefault((key, mark.level, mark.round), mark.digest)
                continue
            mine = self.model.get(key)
            if mine is None or is_above(mark, mine):
                # Signatory has signed it, as far as anyone can know.
                self.signed.setdefault((key, mark.level, mark.round), mark.digest)
            self.model[key] = merged(mine, mark)
        self.open()
        assert self.read_marks() == self.model

    @rule(key=st.sampled_from(KEYS))
    def the_last_message_may_always_be_signed_again(self, key: MarkKey) -> None:
        stored = self.model.get(key)
        if stored is not None and stored.digest is not None:
            other = stored._replace(digest=b"another")
            batch = [(key, stored), (key, other)]
            verdict, refusal = self.runner.run(self.ask(batch))
            assert verdict is Verdict.REPEAT
            assert isinstance(refusal, WatermarkRejected)
            self.record(batch, [verdict, refusal])


TestWatermarkMachine = WatermarkMachine.TestCase
TestWatermarkMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
