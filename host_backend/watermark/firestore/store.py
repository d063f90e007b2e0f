"""The `WatermarkStore` in Firestore: several hosts on one collection never allow two messages for one right.

- A mark is judged in the transaction that writes it, by `watermark.rule`, on what that transaction has read. Nothing is
  remembered between two requests.
- Every transaction reads the store's document: where that is gone, is another one, or was retired, nothing is allowed.
- Requests for one right are judged one after the other, in order; equal ones that wait together share a transaction, so
  that a repeat waits for the writing of its mark.
- A refusal rests on what a transaction reads; only a first mark that is allowed waits for others.
- What was not begun ends when everybody who asked has left, when it has waited too long, and when the store is closed.
- That others were writing is no refusal: it is read and judged again. When there is no answer in time, it is unavailable.
- A right whose documents hold no mark is refused alone.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from host_backend.errors import HostError, StoreUnavailable, TooManyWait
from host_backend.google.documents import Write
from host_backend.google.firestore import Firestore
from host_backend.leaving import waiting
from host_backend.watermark.base import Writing
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
from host_backend.watermark.firestore.place import MarksFolder
from host_backend.watermark.firestore.places import NotBegun, TransactionPlaces
from host_backend.watermark.firestore.requests import Request, next_group
from host_backend.watermark.firestore.states import missing_text, require_store, unusable_text
from host_backend.watermark.firestore.transactions import WITHIN_S, Reading, Transactions
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, Mark, MarkKey, Verdict, damaged_text, judge

#: Requests that wait or are answered: ten thousand keys at once, and half as many again.
MAX_REQUESTS = 15_000
#: Seconds until work in progress is abandoned when the store is closed: it ends by itself before.
CLOSE_S = WITHIN_S + 0.5

logger = logging.getLogger(__name__)


class _FirstMark(Exception):
    """A right has no mark yet, and may have this one: its chain is noted, too, in documents that others write.

    Attributes:
        noted: Chains that the store has.
    """

    def __init__(self, noted: tuple[str, ...]) -> None:
        super().__init__(noted)
        self.noted = noted


class FirestoreWatermarkStore:
    """A `WatermarkStore`. Belongs to the event loop that runs when it is made.

    Args:
        database: Where the collection is. Its opener closes it, after the store.
        store_id: The store that this host has accepted.
        max_level_jump: Levels, at least 0, by which one request may pass the stored mark.
        writing: A context around every commit, to measure it.
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
        self._places = TransactionPlaces()
        self._requests = 0
        self._waiting: dict[MarkKey, deque[Request]] = {}
        self._working: set[asyncio.Task[None]] = set()
        self._refused: dict[MarkKey, str] = {}
        self.problem: str | None = None

    @property
    def refused(self) -> Mapping[MarkKey, str]:
        """Rights that were found damaged when they were asked for; see `WatermarkStore.refused`."""
        return self._refused

    async def advance(self, key: MarkKey, asked: Mark) -> Verdict:
        """Ask whether a message may be signed; see `WatermarkStore.advance`."""
        if self._places.closed:
            raise self._closed()
        if self._requests >= MAX_REQUESTS:
            raise TooManyWait(f"{MAX_REQUESTS} requests wait for their marks already: try again later")
        request = Request(asked)
        self._requests += 1
        try:
            self._take(key, request)
            with waiting():
                await request.begun
            return await request.answer
        finally:
            request.answer.cancel()
            self._requests -= 1

    def _take(self, key: MarkKey, request: Request) -> None:
        if (others := self._waiting.get(key)) is not None:
            others.append(request)
            return
        self._waiting[key] = deque([request])
        # A task of its own: the caller may leave.
        task = asyncio.create_task(self._work(key))
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _work(self, key: MarkKey) -> None:
        """Answer everybody who waits for one right."""
        others, group = self._waiting[key], list[Request]()
        end: Exception = self._closed()
        try:
            while group := next_group(others):
                outcome = await self._outcome(key, group)
                for request in group:
                    request.end(outcome)
                    # The others ask for the mark that is stored now.
                    outcome = Verdict.REPEAT if outcome is Verdict.ADVANCE else outcome
        except Exception as bug:  # noqa: BLE001 -- it reaches the caller
            end = bug
        finally:
            del self._waiting[key]
            for request in (*group, *others):
                request.end(end)

    async def _outcome(self, key: MarkKey, group: list[Request]) -> Verdict | HostError:
        try:
            try:
                verdict = await self._transact(key, group, self._places.any(key))
            except _FirstMark as first:
                verdict = await self._transact(key, group, self._places.first(key, first.noted), first=True)
        except NotBegun as told:
            return told.error or self._closed()
        except DamagedMark as damaged:
            self._refused[key] = damaged_text(key, damaged.known, str(damaged))
            return StoreUnavailable(self._refused[key])
        except StoreUnavailable as error:
            self.problem = f"watermark store {self._place}: {error}"
            return StoreUnavailable(self.problem)
        except HostError as error:
            self._judged(key)
            return error
        self._judged(key)
        return verdict

    async def _transact(
        self, key: MarkKey, group: list[Request], place: AbstractAsyncContextManager[None], *, first: bool = False
    ) -> Verdict:
        """Judge what equal requests ask for, once there is a place."""

        async def decide(reading: Reading) -> tuple[Verdict, Iterable[Write]]:
            return await self._decide(key, group[0].asked, reading, first=first)

        async with place:
            staying = [request for request in group if not request.left]
            if not staying:
                raise NotBegun
            for request in staying:
                request.begin()
            return await self._transactions.run([self._layout.store, *self._layout.present(key)], decide)

    def _closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"watermark store {self._place} is closed")

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
        if chains is not None and not first:
            raise _FirstMark(store.chains)
        return verdict, [*layout.writes(key, asked), *noting]

    async def aclose(self) -> None:
        """Refuse requests not begun, answer the rest, end every transaction; see `WatermarkStore.aclose`. Ends in seconds."""
        self._places.close()
        if self._working:
            _, late = await asyncio.wait(self._working, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
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
        database: Where the store is. Its opener closes it.
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
