"""The `WatermarkStore` in Firestore: several hosts on one collection never allow two messages for one right.

- A mark is judged in the transaction that writes it, by `watermark.rule`, on what that transaction has read. Nothing is
  remembered between two requests.
- Every transaction reads the store's document: where that is gone, is another one, or was retired, nothing is allowed.
- Requests for one right are judged one after the other, in order; equal ones that wait together share a transaction, so
  that a repeat waits for the writing of its mark.
- That others were writing is no refusal: it is read and judged anew. When there is no answer in time, it is unavailable.
- A right whose documents hold no mark is refused alone.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

from host_backend.errors import HostError, StoreUnavailable
from host_backend.google.documents import Write
from host_backend.google.firestore import Firestore
from host_backend.watermark.firestore.contents import Contents
from host_backend.watermark.firestore.layout import (
    DamagedMark,
    Layout,
    StoreDocument,
    highest,
    marked_chains,
    parse_store,
    texts,
)
from host_backend.watermark.firestore.place import MarksFolder, damaged_text
from host_backend.watermark.firestore.states import missing_text, require_store, unusable_text
from host_backend.watermark.firestore.transactions import Reading, Transactions, Writing
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, Mark, MarkKey, Verdict, judge

#: Transactions at once: each has two or three calls of some tens of milliseconds, on one connection that takes 100.
MAX_TRANSACTIONS = 64
#: Stands for the key where a chain is the first of its kind for all of them.
_ANY_KEY = ""

logger = logging.getLogger(__name__)


class _Request(NamedTuple):
    asked: Mark
    answer: asyncio.Future[Verdict]


class _FirstMark(Exception):
    """A right has no mark yet: its chain is noted, too, in a document that others write.

    Attributes:
        shared: Whose document that is.
    """

    def __init__(self, shared: str) -> None:
        super().__init__(shared)
        self.shared = shared


class FirestoreWatermarkStore:
    """A `WatermarkStore`. Belongs to the event loop that runs when it is made.

    Args:
        database: Where the collection is. Whoever opened it closes it, after the store.
        store_id: The store that this host has accepted.
        max_level_jump: Levels, at least 0, by which one request may pass the stored mark.
        writing: What is around every commit, for whoever measures them.
    """

    def __init__(
        self,
        database: Firestore,
        store_id: str,
        *,
        max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP,
        writing: Writing = nullcontext,
    ) -> None:
        self._place = database.place
        self._layout = Layout(database.place.collection)
        self._store_id = store_id
        self._max_level_jump = max_level_jump
        self._transactions = Transactions(database, writing)
        self._free = asyncio.Semaphore(MAX_TRANSACTIONS)
        #: Locks of those who write the same document for a first mark: in one host they need not meet in Firestore.
        self._first_marks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: dict[MarkKey, deque[_Request]] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._closing = False
        self._refused: dict[MarkKey, str] = {}
        self.problem: str | None = None

    @property
    def refused(self) -> Mapping[MarkKey, str]:
        """Rights that were found damaged when they were asked for; see `WatermarkStore.refused`."""
        return self._refused

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        """Ask whether a message may be signed; see `WatermarkStore.advance`."""
        if self._closing:
            raise StoreUnavailable(f"watermark store {self._place} is closed")
        request = _Request(asked, asyncio.get_running_loop().create_future())
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque([request])
            # A task of its own: the caller may leave.
            task = asyncio.create_task(self._work(key))
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        else:
            waiting.append(request)
        return await request.answer

    async def _work(self, key: MarkKey) -> None:
        """Answer everybody who waits for one right."""
        waiting, group = self._waiting[key], list[_Request]()
        try:
            while group := _next_group(waiting):
                outcome = await self._outcome(key, group[0].asked)
                for request in group:
                    _answer(request, outcome)
                    # The others ask for what is stored now.
                    outcome = Verdict.REPEAT if outcome is Verdict.ADVANCE else outcome
        except Exception as bug:  # noqa: BLE001 -- it reaches whoever asked
            for request in (*group, *waiting):
                _answer(request, bug)
        finally:
            del self._waiting[key]

    async def _outcome(self, key: MarkKey, asked: Mark) -> Verdict | HostError:
        try:
            try:
                verdict = await self._transact(key, asked, first=False)
            except _FirstMark as first:
                async with self._first_marks.setdefault(first.shared, asyncio.Lock()):
                    verdict = await self._transact(key, asked, first=True)
        except DamagedMark as damaged:
            self._refused[key] = damaged_text(key, damaged)
            return StoreUnavailable(self._refused[key])
        except StoreUnavailable as error:
            self.problem = f"watermark store {self._place}: {error}"
            return StoreUnavailable(self.problem)
        except HostError as error:
            self._judged(key)
            return error
        self._judged(key)
        return verdict

    async def _transact(self, key: MarkKey, asked: Mark, *, first: bool) -> Verdict:
        async def decide(reading: Reading) -> tuple[Verdict, Iterable[Write]]:
            return await self._decide(key, asked, reading, first=first)

        async with self._free:
            return await self._transactions.run([self._layout.store, *self._layout.present(key)], decide)

    def _judged(self, key: MarkKey) -> None:
        self.problem = None
        self._refused.pop(key, None)

    async def _decide(
        self, key: MarkKey, asked: Mark, reading: Reading, *, first: bool
    ) -> tuple[Verdict, Iterable[Write]]:
        layout, documents = self._layout, reading.documents
        store = parse_store(documents[layout.store])
        if store is None or store.store_id != self._store_id or not store.usable(self._place):
            raise StoreUnavailable(
                missing_text(self._place, self._place) if store is None else unusable_text(self._place, store)
            )
        stored, chains, noting = highest(documents[path] for path in layout.present(key)), None, list[Write]()
        if stored is None and not first:
            raise _FirstMark(key.pkh if key.chain_id in store.chains else _ANY_KEY)
        if stored is None:
            of_key, older = layout.chains_of(key.pkh), layout.older(key)
            await reading.more([of_key, *older])
            stored = highest(documents[path] for path in older)
            noted = texts(documents[of_key], "chains")
            chains = marked_chains(key, store, noted)
            noting += layout.chain_writes(of_key, noted, [key.chain_id])
            noting += layout.chain_writes(layout.store, store.chains, [key.chain_id])
        verdict = judge(key, stored, asked, self._max_level_jump, chains)
        if verdict is Verdict.REPEAT:
            return verdict, ()
        return verdict, [*layout.writes(key, asked), *noting]

    async def aclose(self) -> None:
        """Answer those who wait, then end every transaction; see `WatermarkStore.aclose`."""
        self._closing = True
        await asyncio.gather(*self._working)
        await self._transactions.aclose()


@asynccontextmanager
async def open_marks(
    base_dir: Path,
    database: Firestore,
    *,
    max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP,
    writing: Writing = nullcontext,
) -> AsyncIterator[FirestoreWatermarkStore]:
    """Open the store that a folder has accepted, and have the folder until the end.

    Args:
        base_dir: The folder; what Signatory left there is taken over, where it is higher.
        database: Where the store is. Whoever opened it closes it.
        max_level_jump: As for the store.
        writing: As for the store.

    Raises:
        ConfigError: There is no such store, or the folder has marks of another driver; the text says what to do.
        StoreUnavailable: It did not answer.
    """
    folder, contents = MarksFolder(base_dir, database.place), Contents(database)
    with folder.held() as claim:
        try:
            store_id = folder.require_accepted(await contents.store())
            claim()
            folder.signatory.note_elsewhere()

            def check(store: StoreDocument | None) -> StoreDocument:
                return require_store(database.place, store, store_id)

            if raised := await contents.raise_to(folder.signatory.read(), check):
                logger.warning("%d marks taken over from Signatory's files in %s", raised, base_dir)
        finally:
            await contents.aclose()
        store = FirestoreWatermarkStore(database, store_id, max_level_jump=max_level_jump, writing=writing)
        try:
            yield store
        finally:
            await store.aclose()


def _next_group(waiting: deque[_Request]) -> list[_Request]:
    """Take the next request, and those behind it that repeat it; whoever left is left out."""
    group: list[_Request] = []
    while waiting and (not group or _repeats(waiting[0].asked, group[0].asked)):
        request = waiting.popleft()
        if not request.answer.done():
            group.append(request)
    return group


def _repeats(asked: Mark, other: Mark) -> bool:
    return asked.digest is not None and asked == other


def _answer(request: _Request, outcome: Verdict | Exception) -> None:
    if request.answer.done():
        return
    if isinstance(outcome, Exception):
        request.answer.set_exception(outcome)
    else:
        request.answer.set_result(outcome)
