"""Batches of requests, judged and written: what a host that has the file store does with what it is asked. Synchronous.

- A batch is judged in order, against the stored marks and the batch so far; what advanced is written with one sync. Only
  then does anyone in it get an answer.
- After any error of a write its outcome is unknown: the whole batch gets `StoreUnavailable`, and nothing is judged
  before the same bytes were written again and synced.
- A right whose mark was damaged, or that gets no slot, is refused alone.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

from host_backend.errors import HostError, StoreUnavailable, WatermarkRejected, reason_of
from host_backend.watermark.base import Writing
from host_backend.watermark.file.held import HeldStore, no_slot_text
from host_backend.watermark.file.place import REBUILD
from host_backend.watermark.file.slots import NoSlot
from host_backend.watermark.rule import Mark, MarkedChains, MarkKey, Verdict, damaged_text, judge

#: Tries to write again, after which the advice is to rebuild the store.
_MANY_TRIES = 10

Outcome: TypeAlias = Verdict | HostError
#: Whose mark, the mark that is asked for, and what the caller knows its request by.
Asked: TypeAlias = tuple[MarkKey, Mark, object]

logger = logging.getLogger(__name__)


class Batches:
    """Answers requests from an open store. One thread has it, and the store.

    Args:
        store: The open store.
        max_level_jump: Levels, at least 0, by which one request may pass the stored mark.
        writing: A context around every write, to measure it.

    Attributes:
        problem: Why the last batch could not be judged; None when it could.
    """

    def __init__(self, store: HeldStore, max_level_jump: int, writing: Writing) -> None:
        self._store = store
        self._slots = store.slots
        self._max_level_jump = max_level_jump
        self._writing = writing
        # Ahead of the marks while a batch is written; remade whenever a write has failed.
        self._chains = MarkedChains(self._slots.keys)
        self._failed = False
        self.problem: str | None = None

    def use_quiet_time(self) -> None:
        """Look at what others did to the file, seal it, and make room for new rights; to be called when no request waits."""
        try:
            self._store.require_untouched()
            self._slots.seal()
        except (HostError, OSError) as error:
            # No request has asked; it is tried again, and health reports it.
            self._note_problem(error)
            return
        except Exception:
            logger.exception("watermark store %s: a bug in a quiet time", self._store.path)
            return
        self.problem = None
        with suppress(OSError):
            # For later; a caller that needs it then gets the error.
            self._slots.grow_ahead()

    def answer(self, batch: Sequence[Asked]) -> Sequence[Outcome]:
        """Return the answer to each request, in their order; every permission to sign is durable."""
        try:
            self._store.require_untouched()
            if self._failed or self._slots.commits.in_doubt:
                self._recover()
            outcomes, advanced = self._judge(batch)
            if advanced:
                with self._writing():
                    outcomes = self._write(batch, outcomes, advanced)
        except (HostError, OSError) as error:
            return self._fail(batch, error)
        except Exception as error:
            # Callers get an answer, and the thread lives on.
            logger.exception("watermark store %s: a bug; %d requests are not signed", self._store.path, len(batch))
            return self._fail(batch, error)
        self.problem = None
        return outcomes

    def _fail(self, batch: Sequence[Asked], error: Exception) -> Sequence[Outcome]:
        self._failed = True
        unavailable = self._note_problem(error)
        return [unavailable for _ in batch]

    def _recover(self) -> None:
        self._slots.commits.settle()
        self._chains = MarkedChains(self._slots.keys)
        self._failed = False

    def _judge(self, batch: Sequence[Asked]) -> tuple[Sequence[Outcome], dict[MarkKey, Mark]]:
        outcomes: list[Outcome] = []
        advanced: dict[MarkKey, Mark] = {}
        slots, refused = self._slots, self._slots.refused
        for key, asked, _ in batch:
            if refused and key in refused:
                outcomes.append(StoreUnavailable(damaged_text(key, refused[key])))
                continue
            stored = advanced.get(key) or slots.marks.get(key)
            try:
                verdict = judge(key, stored, asked, self._max_level_jump, self._chains)
            except WatermarkRejected as refusal:
                outcomes.append(refusal)
                continue
            if verdict is Verdict.ADVANCE:
                advanced[key] = asked
                if stored is None:
                    self._chains.add(key)
            outcomes.append(verdict)
        return outcomes, advanced

    def _write(
        self, batch: Sequence[Asked], outcomes: Sequence[Outcome], advanced: dict[MarkKey, Mark]
    ) -> Sequence[Outcome]:
        """Store what advanced. Rights for which there is no slot get none of it, and disturb no others."""
        try:
            if not advanced.keys() <= self._slots.marks.keys():
                self._slots.give(list(advanced))
        except NoSlot as error:
            unavailable = StoreUnavailable(no_slot_text(self._store.path, error))
            kept = {key: mark for key, mark in advanced.items() if self._slots.has_slot(key)}
            without = advanced.keys() - kept.keys()
            outcomes = [
                unavailable if key in without and isinstance(outcome, Verdict) else outcome
                for (key, _, _), outcome in zip(batch, outcomes, strict=True)
            ]
            advanced = kept
            self._chains = MarkedChains(self._slots.keys)
        if advanced:
            self._slots.write(advanced)
        return outcomes

    def _note_problem(self, error: Exception) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            unavailable = error
        else:
            what = reason_of(error) if isinstance(error, OSError) else str(error)
            unavailable = StoreUnavailable(f"watermark store {self._store.path}: {what}; {self._advice()}")
            unavailable.__cause__ = error
        if self.problem is None:
            logger.error("nothing that needs a mark is signed: %s", unavailable)
        self.problem = str(unavailable)
        return unavailable

    def _advice(self) -> str:
        if self._slots.commits.tries < _MANY_TRIES:
            return "look at the disk"
        return (
            f"what was written last could not be written again in {self._slots.commits.tries} tries: look at the disk; if it is "
            f"lost, stop the host, and rebuild the marks elsewhere with {REBUILD}"
        )
