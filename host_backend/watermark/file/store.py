"""The `WatermarkStore` of a host that has a disk: one file in its folder.

- One process has the file, from `open` to `aclose`; within it one thread does.
- That thread takes everything that waits as one batch, judges it in order against the stored marks and the batch so
  far, and writes what advanced. Only then does anyone in the batch get an answer: a repeat of a mark that is being
  written has waited for it, and many requests share one sync.
- After any error of a write its outcome is unknown: the whole batch gets `StoreUnavailable`, and nothing is judged
  before the same bytes were written again and synced.
- A right whose mark was damaged, or that gets no slot, is refused alone.
- A second without a batch, and at every stop, the file is sealed: from then on the last batch cannot be lost unseen.
- The content of the file: `layout`; how it is written: `slots`; who may have it: `held`.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self, TypeAlias

from host_backend.errors import HostError, StoreUnavailable, WatermarkRejected, reason_of
from host_backend.watermark.file.blocks import PosixBlocks
from host_backend.watermark.file.held import HeldStore, OpenBlocks, held_store, no_slot_text
from host_backend.watermark.file.place import REBUILD, store_path
from host_backend.watermark.file.slots import NoSlot
from host_backend.watermark.rule import (
    DEFAULT_MAX_LEVEL_JUMP,
    Mark,
    MarkedChains,
    MarkKey,
    Verdict,
    judge,
    refusal_text,
)

#: Requests handed over together, and after which no more are taken into a batch: more than keys times rights of any baker.
_MAX_BATCH = 1000
#: Seconds without a request after which the file is sealed, and looked at for what others did to it.
_QUIET_S = 1.0
#: Tries to write again, after which the advice is to rebuild the store.
_MANY_TRIES = 10

#: A context around every write to the disk, in the store's thread. One write stores all marks that waited together.
Writing = Callable[[], AbstractContextManager[None]]
Outcome = Verdict | HostError

logger = logging.getLogger(__name__)


#: Whose mark, the mark that is asked for, and who waits for the answer.
_Request: TypeAlias = tuple[MarkKey, Mark, asyncio.Future[Verdict]]


class FileWatermarkStore:
    """A `WatermarkStore` in one file. Get one from `open`; it belongs to the event loop that runs then."""

    def __init__(self, path: Path, max_level_jump: int, writing: Writing) -> None:
        self._path = path
        self._max_level_jump = max_level_jump
        self._writing = writing
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        #: What was asked in this pass of the event loop: to wake the thread for each would cost more than the asking.
        self._asked: list[_Request] = []
        # None ends the thread; nothing is put after it.
        self._requests: SimpleQueue[list[_Request] | None] = SimpleQueue()
        self.problem: str | None = None
        self.refused: Mapping[MarkKey, str] = {}
        # Ahead of the marks while a batch is written; remade whenever a write has failed. Only the thread touches it.
        self._chains = MarkedChains()
        self._failed = False

    @classmethod
    async def open(
        cls,
        base_dir: Path,
        *,
        max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP,
        in_memory_allowed: bool = False,
        blocks: OpenBlocks = PosixBlocks.writing,
        writing: Writing = nullcontext,
    ) -> Self:
        """Open the store and keep every other process out until `aclose`.

        Args:
            base_dir: The folder of the store; where Signatory left marks and no host of ours has been, one is made.
            max_level_jump: Levels, at least 0, by which one request may pass the stored mark.
            in_memory_allowed: Whether the store may be on a file system in memory.
            blocks: Another way to open the file: the seam at which tests make a disk fail.
            writing: A context around every write, to measure it.

        Raises:
            ConfigError: No store, not ours, not whole, or another process has it; the text says which.
            StoreUnavailable: It could not be read or written.
        """
        store = cls(store_path(base_dir), max_level_jump, writing)
        held = held_store(base_dir, in_memory_allowed=in_memory_allowed, blocks=blocks, make_after_signatory=True)
        # A daemon thread: whatever it answered for is durable, so the process may end at any moment.
        threading.Thread(target=store._run, args=(held,), name="watermark", daemon=True).start()
        try:
            await asyncio.shield(store._opened)
        except BaseException:
            with suppress(HostError):
                await store.aclose()
            raise
        return store

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        """Ask whether a message may be signed; see `WatermarkStore.advance`. Waits as long as the disk does."""
        if self._closing:
            raise StoreUnavailable(f"watermark store {self._path} is closed")
        answer: asyncio.Future[Verdict] = self._loop.create_future()
        if not self._asked:
            self._loop.call_soon(self._hand_over)
        self._asked.append((key, asked, answer))
        return await answer

    def _hand_over(self) -> None:
        # In portions of one batch.
        asked, self._asked = self._asked, []
        for start in range(0, len(asked), _MAX_BATCH):
            self._requests.put(asked[start : start + _MAX_BATCH])

    async def aclose(self) -> None:
        """Answer those who wait, hand the marks back, let others have the file; see `WatermarkStore.aclose`."""
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._requests.put(None)
        await asyncio.shield(self._ended)

    def _on_ended(self, error: HostError | None) -> None:
        """In the event loop: let no caller wait for a thread that has ended."""
        self._closing = True
        self._hand_over()
        while not self._requests.empty():
            left = self._requests.get() or []
            _deliver(left, [StoreUnavailable(f"watermark store {self._path} is closed") for _ in left])
        if self._opened.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)
            return
        self._opened.set_exception(error or StoreUnavailable(f"watermark store {self._path} is closed"))
        self._ended.set_result(None)

    # What follows runs in the thread.

    def _run(self, held: AbstractContextManager[HeldStore]) -> None:
        failure: HostError | None = None
        try:
            with held as store:
                self._chains = MarkedChains(store.slots.keys)
                self._tell_refused(store)
                self._loop.call_soon_threadsafe(self._opened.set_result, None)
                self._serve(store)
                store.close_in_order()
        except HostError as error:
            failure = error
        except Exception:
            logger.exception("watermark store %s: a bug has ended its thread", self._path)
            failure = StoreUnavailable(f"watermark store {self._path}: its thread failed, see the log")
            self.problem = str(failure)
        finally:
            self._loop.call_soon_threadsafe(self._on_ended, failure)

    def _tell_refused(self, store: HeldStore) -> None:
        self.refused = {key: refusal_text(key, known) for key, known in store.slots.refused.items()}
        for text in self.refused.values():
            logger.error("%s", text)

    def _serve(self, store: HeldStore) -> None:
        while True:
            try:
                portion = self._requests.get(timeout=_QUIET_S)
            except Empty:
                self._use_quiet_time(store)
                continue
            batch = portion or []
            while portion is not None and len(batch) < _MAX_BATCH and not self._requests.empty():
                portion = self._requests.get()
                batch.extend(portion or ())
            if batch:
                self._loop.call_soon_threadsafe(_deliver, batch, self._answer(store, batch))
            if portion is None:
                return

    def _use_quiet_time(self, store: HeldStore) -> None:
        try:
            store.require_untouched()
            store.slots.seal()
        except (HostError, OSError) as error:
            # No request has asked; it is tried again, and health reports it.
            self._note_problem(store, error)
            return
        except Exception:
            logger.exception("watermark store %s: a bug in a quiet time", self._path)
            return
        self.problem = None
        with suppress(OSError):
            # For later; a caller that needs it then gets the error.
            store.slots.grow_ahead()

    def _answer(self, store: HeldStore, batch: Sequence[_Request]) -> Sequence[Outcome]:
        try:
            store.require_untouched()
            if self._failed or store.slots.commits.in_doubt:
                self._recover(store)
            outcomes, advanced = self._judge(store, batch)
            if advanced:
                with self._writing():
                    outcomes = self._write(store, batch, outcomes, advanced)
        except (HostError, OSError) as error:
            return self._fail(store, batch, error)
        except Exception as error:
            # Callers get an answer, and the thread lives on.
            logger.exception("watermark store %s: a bug; %d requests are not signed", self._path, len(batch))
            return self._fail(store, batch, error)
        self.problem = None
        return outcomes

    def _fail(self, store: HeldStore, batch: Sequence[_Request], error: Exception) -> Sequence[Outcome]:
        self._failed = True
        unavailable = self._note_problem(store, error)
        return [unavailable for _ in batch]

    def _recover(self, store: HeldStore) -> None:
        store.slots.commits.settle()
        self._chains = MarkedChains(store.slots.keys)
        self._failed = False

    def _judge(self, store: HeldStore, batch: Sequence[_Request]) -> tuple[Sequence[Outcome], dict[MarkKey, Mark]]:
        outcomes: list[Outcome] = []
        advanced: dict[MarkKey, Mark] = {}
        slots, refused = store.slots, store.slots.refused
        for key, asked, _ in batch:
            if refused and key in refused:
                outcomes.append(StoreUnavailable(refusal_text(key, refused[key])))
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
        self, store: HeldStore, batch: Sequence[_Request], outcomes: Sequence[Outcome], advanced: dict[MarkKey, Mark]
    ) -> Sequence[Outcome]:
        """Store what advanced. Rights for which there is no slot get none of it, and disturb no others."""
        try:
            if not advanced.keys() <= store.slots.marks.keys():
                store.slots.give(list(advanced))
        except NoSlot as error:
            unavailable = StoreUnavailable(no_slot_text(self._path, error))
            kept = {key: mark for key, mark in advanced.items() if store.slots.has_slot(key)}
            without = advanced.keys() - kept.keys()
            outcomes = [
                unavailable if key in without and isinstance(outcome, Verdict) else outcome
                for (key, _, _), outcome in zip(batch, outcomes, strict=True)
            ]
            advanced = kept
            self._chains = MarkedChains(store.slots.keys)
        if advanced:
            store.slots.write(advanced)
        return outcomes

    def _note_problem(self, store: HeldStore, error: Exception) -> StoreUnavailable:
        if isinstance(error, StoreUnavailable):
            unavailable = error
        else:
            what = reason_of(error) if isinstance(error, OSError) else str(error)
            unavailable = StoreUnavailable(f"watermark store {self._path}: {what}; {self._advice(store)}")
            unavailable.__cause__ = error
        if self.problem is None:
            logger.error("nothing that needs a mark is signed: %s", unavailable)
        self.problem = str(unavailable)
        return unavailable

    def _advice(self, store: HeldStore) -> str:
        if store.slots.commits.tries < _MANY_TRIES:
            return "look at the disk"
        return (
            f"what was written last could not be written again in {store.slots.commits.tries} tries: look at the disk; if it is "
            f"lost, stop the host, and rebuild the marks elsewhere with {REBUILD}"
        )


def _deliver(batch: Sequence[_Request], outcomes: Sequence[Outcome]) -> None:
    for (_, _, answer), outcome in zip(batch, outcomes, strict=True):
        if answer.done():
            continue  # its caller left
        if isinstance(outcome, Verdict):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)
