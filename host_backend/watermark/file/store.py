"""The `WatermarkStore` of a host that has a disk: one file in its folder.

- One process has the file, from `open` to `aclose`; within it one thread does.
- That thread takes everything that waits as one batch: a repeat of a mark that is being written waits for it, and many
  requests share one sync. How a batch is judged and written: `batches`.
- A second without a batch, and at every stop, the file is sealed: from then on the last batch cannot be lost unseen.
- The content of the file: `layout`; how it is written: `slots`; who may have it: `held`.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Self, TypeAlias

from host_backend.errors import HostError, StoreUnavailable
from host_backend.watermark.base import Writing
from host_backend.watermark.file.batches import Batches, Outcome
from host_backend.watermark.file.blocks import PosixBlocks
from host_backend.watermark.file.held import HeldStore, OpenBlocks, held_store
from host_backend.watermark.file.place import store_path
from host_backend.watermark.rule import (
    DEFAULT_MAX_LEVEL_JUMP,
    Mark,
    MarkKey,
    Verdict,
    damaged_text,
)

#: Requests handed over together, and after which no more are taken into a batch: more than keys times rights of any baker.
_MAX_BATCH = 1000
#: Seconds without a request after which the file is sealed, and looked at for what others did to it.
_QUIET_S = 1.0

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
        self._batches: Batches | None = None
        self._failure: str | None = None
        self.refused: Mapping[MarkKey, str] = {}

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

    @property
    def problem(self) -> str | None:
        """Why the last request could not be judged; see `WatermarkStore.problem`."""
        return self._failure or (None if self._batches is None else self._batches.problem)

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
                self._batches = Batches(store, self._max_level_jump, self._writing)
                self._tell_refused(store)
                self._loop.call_soon_threadsafe(self._opened.set_result, None)
                self._serve(self._batches)
                store.close_in_order()
        except HostError as error:
            failure = error
        except Exception:
            logger.exception("watermark store %s: a bug has ended its thread", self._path)
            failure = StoreUnavailable(f"watermark store {self._path}: its thread failed, see the log")
            self._failure = str(failure)
        finally:
            self._loop.call_soon_threadsafe(self._on_ended, failure)

    def _tell_refused(self, store: HeldStore) -> None:
        self.refused = {key: damaged_text(key, known) for key, known in store.slots.refused.items()}
        for text in self.refused.values():
            logger.error("%s", text)

    def _serve(self, batches: Batches) -> None:
        while True:
            try:
                portion = self._requests.get(timeout=_QUIET_S)
            except Empty:
                batches.use_quiet_time()
                continue
            batch = portion or []
            while portion is not None and len(batch) < _MAX_BATCH and not self._requests.empty():
                portion = self._requests.get()
                batch.extend(portion or ())
            if batch:
                self._loop.call_soon_threadsafe(_deliver, batch, batches.answer(batch))
            if portion is None:
                return


def _deliver(batch: Sequence[_Request], outcomes: Sequence[Outcome]) -> None:
    for (_, _, answer), outcome in zip(batch, outcomes, strict=True):
        if answer.done():
            continue  # its caller left
        if isinstance(outcome, Verdict):
            answer.set_result(outcome)
        else:
            answer.set_exception(outcome)
