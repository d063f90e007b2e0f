"""All marks of a collection: read, and moved, outside of any request."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from host_backend.errors import StoreUnavailable
from host_backend.google.documents import Document, Field, Write
from host_backend.google.firestore import Firestore
from host_backend.google.outcomes import OutcomeUnknown
from host_backend.watermark.base import StoredMarks
from host_backend.watermark.firestore.layout import (
    LAYOUT,
    DamagedMark,
    Layout,
    StoreDocument,
    change_fields,
    changed_from,
    effective,
    is_chain,
    is_key,
    parse_store,
    texts,
)
from host_backend.watermark.firestore.states import Making, require_made, require_store
from host_backend.watermark.firestore.transactions import Decide, Reading, Transactions
from host_backend.watermark.rule import Mark, MarkKey, is_above, merged
from host_backend.watermark.signatory.layouts import KINDS, RIGHTS

#: Marks that are moved together: their documents are far below what a commit takes.
_TOGETHER = 50
#: Collections that are read at once.
_AT_ONCE = 16
#: Seconds for moving marks that are moved together: no signature waits for it.
_WITHIN_S = 30.0

#: Decides what a mark becomes: given the stored one (None: nothing, or nothing readable), returns the new one; None: as it is.
NewMark = Callable[[MarkKey, Mark | None], Mark | None]
#: Passes where the store that a transaction has read is the right one, and returns it; `ConfigError` otherwise.
Check = Callable[[StoreDocument | None], StoreDocument]


class Contents:
    """The marks of one collection, to manage them.

    Args:
        database: Where the collection is.
    """

    def __init__(self, database: Firestore) -> None:
        self._database = database
        self._layout = Layout(database.place.collection)
        self._transactions = Transactions(database)

    async def store(self) -> StoreDocument | None:
        """Return what the store's document says; None without one."""
        return parse_store((await self._database.get([self._layout.store]))[self._layout.store])

    async def read(self, *, all_names: bool = False) -> StoredMarks:
        """Return every mark.

        Args:
            all_names: Whether names that Signatory gave up count beside a present one.
        """
        documents: dict[MarkKey, tuple[list[Document], list[Document]]] = {}
        chains = [each.id async for each in self._database.list(self._layout.collection) if is_chain(each.id)]
        free = asyncio.Semaphore(_AT_ONCE)

        async def read_kind(chain_id: str, kind: str) -> list[tuple[MarkKey, Document]]:
            async with free:
                found = [each async for each in self._database.list(self._layout.kind(chain_id, kind))]
            return [
                (MarkKey(chain_id, each.id, RIGHTS[kind]), each) for each in found if each.created and is_key(each.id)
            ]

        def present(kind: str) -> bool:
            return all_names or kind in KINDS[RIGHTS[kind]]

        kinds = [(chain, kind) for chain in chains for kind in RIGHTS]
        for (_, kind), found in zip(kinds, await asyncio.gather(*(read_kind(*each) for each in kinds)), strict=True):
            for key, document in found:
                documents.setdefault(key, ([], []))[0 if present(kind) else 1].append(document)
        marks: dict[MarkKey, Mark] = {}
        refused: dict[MarkKey, Mark | None] = {}
        for key, of_key in documents.items():
            try:
                mark = effective(*of_key)
            except DamagedMark as damaged:
                refused[key] = damaged.known
            else:
                if mark is not None:
                    marks[key] = mark
        return StoredMarks(marks, refused)

    async def begin_store(self, making: Making) -> None:
        """Make a new store's document, or put one in the place of the old, that no host uses yet.

        Raises:
            StateConflict: The present store must not be replaced.
        """
        place = self._database.place
        fields: dict[str, Field] = {"id": making.store_id, "layout": 0, "place": place.name, "made_by": making.command}

        async def decide(reading: Reading) -> tuple[None, Iterable[Write]]:
            store = self._store_in(reading)
            # An attempt before this one may have had no answer, and been done.
            if store is not None and store.store_id == making.store_id:
                return None, ()
            making.require_replaceable(place, store)
            return None, [Write(self._layout.store, {**fields, "retired_by": None}, time_field="created")]

        await self._change_store(decide)

    async def open_store(self, store_id: str) -> None:
        """Let hosts use the store that was begun.

        Raises:
            ConfigError: Another one was begun since.
        """

        async def decide(reading: Reading) -> tuple[None, Iterable[Write]]:
            store = require_made(self._database.place, self._store_in(reading), store_id)
            return None, [Write(self._layout.store, {"layout": LAYOUT})] if store.layout == 0 else ()

        await self._change_store(decide)

    async def retire_store(self, store_id: str, move_id: str) -> None:
        """Let no host use the store any more.

        Raises:
            ConfigError: It is another one, or was moved by somebody else.
        """

        async def decide(reading: Reading) -> tuple[None, Iterable[Write]]:
            store, place = self._store_in(reading), self._database.place
            if store is not None and (store.store_id, store.place, store.retired_by) == (store_id, place.name, move_id):
                return None, ()
            require_store(place, store, store_id)
            return None, [Write(self._layout.store, {"retired_by": move_id})]

        await self._change_store(decide)

    async def _change_store(self, decide: Decide[None]) -> None:
        await self._transactions.run([self._layout.store], decide, _WITHIN_S)

    async def raise_to(self, marks: Mapping[MarkKey, Mark], check: Check) -> int:
        """Raise marks to those of another store, the highest of each right; return how many were raised."""

        def new(key: MarkKey, stored: Mark | None) -> Mark | None:
            mark = merged(stored, marks[key])
            return None if mark == stored else mark

        return await self.move(marks, new, check)

    async def move(self, keys: Iterable[MarkKey], new: NewMark, check: Check) -> int:
        """Move marks, and note their chains; return how many are higher now.

        Args:
            keys: Whose.
            new: May be called several times for each key, and may refuse: then nothing of its batch is moved.
            check: Passes where the store is the one whose marks are moved.
        """
        left, raised = iter(keys), 0
        while together := list(islice(left, _TOGETHER)):
            raised += await self._move(together, new, check)
        return raised

    async def _move(self, keys: list[MarkKey], new: NewMark, check: Check) -> int:
        # Of every attempt: what one did whose answer was lost, the next finds done.
        raised: set[MarkKey] = set()

        async def decide(reading: Reading) -> tuple[None, Iterable[Write]]:
            stored, moved, writes = self._moves(keys, new, check, reading)
            raised.update(key for key, mark in moved.items() if (old := stored[key]) is None or is_above(mark, old))
            return None, writes

        await self._transactions.run(self._paths(keys), decide, _WITHIN_S)
        return len(raised)

    async def change(self, key: MarkKey, new: NewMark, check: Check) -> Mark | None:
        """Move one mark once, though an answer be lost: it is noted with the mark; return the one that was there.

        Args:
            key: Whose.
            new: As for `move`.
            check: As for `move`.

        Raises:
            StoreUnavailable: The text says when it may have been done.
        """
        path = self._layout.change(secrets.token_hex(8))

        async def decide(reading: Reading) -> tuple[Mark | None, Iterable[Write]]:
            if (done := reading.documents[path]) is not None:
                return changed_from(done), ()
            stored, moved, writes = self._moves([key], new, check, reading)
            noted = [
                Write(path, change_fields(key, stored[key], mark), time_field="changed") for mark in moved.values()
            ]
            return stored[key], [*writes, *noted]

        try:
            return await self._transactions.run([path, *self._paths([key])], decide, _WITHIN_S)
        except OutcomeUnknown as error:
            raise StoreUnavailable(
                f"{error}; it may have been done: look at the mark with `enclave-host watermark show` before you repeat it"
            ) from error

    def _paths(self, keys: list[MarkKey]) -> list[str]:
        layout = self._layout
        marks = [path for key in keys for path in (*layout.present(key), *layout.older(key))]
        return [layout.store, *dict.fromkeys(layout.chains_of(key.pkh) for key in keys), *marks]

    def _moves(
        self, keys: list[MarkKey], new: NewMark, check: Check, reading: Reading
    ) -> tuple[dict[MarkKey, Mark | None], dict[MarkKey, Mark], list[Write]]:
        """Return the stored marks, those that they become, and the writes for it."""
        layout, documents, writes = self._layout, reading.documents, list[Write]()
        store = check(self._store_in(reading))
        stored = {key: self._stored(key, documents) for key in keys}
        moved = {key: mark for key in keys if (mark := new(key, stored[key])) is not None}
        for key, mark in moved.items():
            writes += layout.writes(key, mark)
        for pkh in dict.fromkeys(key.pkh for key in keys):
            path, chains = layout.chains_of(pkh), [key.chain_id for key in moved if key.pkh == pkh]
            writes += layout.chain_writes(path, texts(documents[path], "chains"), chains)
        writes += layout.chain_writes(layout.store, store.chains, [key.chain_id for key in moved])
        return stored, moved, writes

    def _stored(self, key: MarkKey, documents: Mapping[str, Document | None]) -> Mark | None:
        layout = self._layout
        try:
            return effective(
                [documents[path] for path in layout.present(key)], [documents[path] for path in layout.older(key)]
            )
        except DamagedMark as damaged:
            return damaged.known

    def _store_in(self, reading: Reading) -> StoreDocument | None:
        return parse_store(reading.documents[self._layout.store])

    async def aclose(self) -> None:
        """End every transaction."""
        await self._transactions.aclose()
