"""All marks of a collection: read, and moved, outside of any request."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

from host_backend.errors import ConfigError
from host_backend.google.documents import Document, Field, Write
from host_backend.google.firestore import Firestore
from host_backend.watermark.base import StoredMarks
from host_backend.watermark.firestore.layout import (
    LAYOUT,
    DamagedMark,
    Layout,
    StoreDocument,
    effective,
    is_chain,
    is_key,
    parse_store,
    texts,
)
from host_backend.watermark.firestore.place import missing_text
from host_backend.watermark.firestore.transactions import Reading, Transactions
from host_backend.watermark.rule import Mark, MarkKey, is_above, merged
from host_backend.watermark.signatory.layouts import KINDS, RIGHTS

#: Marks that are moved together: their documents are far below what a commit takes.
_TOGETHER = 50
#: Collections that are read at once.
_AT_ONCE = 16
#: Seconds for moving marks that are moved together: nobody waits for a signature meanwhile.
_WITHIN_S = 30.0

#: Decides what a mark becomes: given what is stored (None: nothing, or nothing readable), returns the new one; None: as it is.
NewMark = Callable[[MarkKey, Mark | None], Mark | None]


class Contents:
    """The marks of one collection, for whoever looks after them.

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

    async def begin_store(self) -> str:
        """Make a new store's document, or put one in the place of the old, that no host uses yet; return its id."""
        store_id = secrets.token_hex(8)

        async def decide(_: Reading) -> tuple[str, Iterable[Write]]:
            fields: dict[str, Field] = {"id": store_id, "layout": 0, "retired": None}
            return store_id, [Write(self._layout.store, fields, time_field="created")]

        return await self._transactions.run([self._layout.store], decide, _WITHIN_S)

    async def change_store(self, **fields: int | bool) -> None:
        """Change fields of the store's document.

        Raises:
            ConfigError: There is none.
        """

        async def decide(reading: Reading) -> tuple[None, Iterable[Write]]:
            self._require_store(reading)
            return None, [Write(self._layout.store, fields)]

        await self._transactions.run([self._layout.store], decide, _WITHIN_S)

    async def open_store(self) -> None:
        """Let hosts use the store."""
        await self.change_store(layout=LAYOUT)

    async def raise_to(self, marks: Mapping[MarkKey, Mark]) -> int:
        """Raise marks to those of another store, the highest of each right; return how many were raised."""

        def new(key: MarkKey, stored: Mark | None) -> Mark | None:
            mark = merged(stored, marks[key])
            return None if mark == stored else mark

        return await self.move(marks, new)

    async def move(self, keys: Iterable[MarkKey], new: NewMark) -> int:
        """Move marks, and note their chains; return how many are higher now.

        Args:
            keys: Whose.
            new: May be called several times for each key, and may refuse: then nothing of its batch is moved.
        """
        left, raised = iter(keys), 0
        while together := list(islice(left, _TOGETHER)):
            raised += await self._move(together, new)
        return raised

    async def _move(self, keys: list[MarkKey], new: NewMark) -> int:
        layout = self._layout
        of_keys = {key.pkh: layout.chains_of(key.pkh) for key in keys}
        marks = [path for key in keys for path in (*layout.present(key), *layout.older(key))]

        async def decide(reading: Reading) -> tuple[int, Iterable[Write]]:
            store, documents, writes = self._require_store(reading), reading.documents, list[Write]()
            stored = {key: self._stored(key, documents) for key in keys}
            moved = {key: mark for key in keys if (mark := new(key, stored[key])) is not None}
            for key, mark in moved.items():
                writes += layout.writes(key, mark)
            for pkh, path in of_keys.items():
                chains = [key.chain_id for key in moved if key.pkh == pkh]
                writes += layout.chain_writes(path, texts(documents[path], "chains"), chains)
            writes += layout.chain_writes(layout.store, store.chains, [key.chain_id for key in moved])
            raised = [key for key, mark in moved.items() if (old := stored[key]) is None or is_above(mark, old)]
            return len(raised), writes

        return await self._transactions.run([layout.store, *of_keys.values(), *marks], decide, _WITHIN_S)

    def _stored(self, key: MarkKey, documents: Mapping[str, Document | None]) -> Mark | None:
        layout = self._layout
        try:
            return effective(
                [documents[path] for path in layout.present(key)], [documents[path] for path in layout.older(key)]
            )
        except DamagedMark as damaged:
            return damaged.known

    def _require_store(self, reading: Reading) -> StoreDocument:
        store = parse_store(reading.documents[self._layout.store])
        if store is None:
            raise ConfigError(missing_text(self._database.place))
        return store

    async def aclose(self) -> None:
        """End every transaction."""
        await self._transactions.aclose()
