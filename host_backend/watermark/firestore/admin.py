"""The `MarksAdmin` of a store in Firestore.

- Whatever moves a mark does so in a transaction: hosts on other machines that use the store go on, and see it. On this
  machine the folder must be free, as for every store.
- What makes or ends a store changes its document: every host that has accepted another one, or this one before, stops.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from host_backend.config.google_places import FirestorePlace
from host_backend.errors import StateConflict
from host_backend.google.connecting import connect
from host_backend.google.firestore import Firestore
from host_backend.log import fields
from host_backend.watermark.base import MarksDescription, StoredMarks
from host_backend.watermark.file.place import REBUILD, make_base_dir, process_of, reporting, store_path
from host_backend.watermark.firestore.contents import Check, Contents
from host_backend.watermark.firestore.layout import StoreDocument
from host_backend.watermark.firestore.place import MarksFolder, remembered_store
from host_backend.watermark.firestore.states import (
    BY_INIT,
    BY_REBUILD,
    Making,
    missing_text,
    require_made,
    require_store,
    unusable_text,
)
from host_backend.watermark.rebuilt import Rebuilt
from host_backend.watermark.rule import Mark, MarkKey, all_damaged_text, is_above, merged, require_in_range, union
from host_backend.watermark.signatory.layouts import put_aside, read_signatory_marks, unreadable_files

#: Marks of a store that is rebuilt: ten thousand keys, three rights, a few chains.
MAX_MARKS = 131_072

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: Gives the database of a place.
Connect = Callable[[FirestorePlace], Awaitable[Firestore]]
Work = Callable[[Contents], Awaitable[T]]


class FirestoreMarks:
    """A `MarksAdmin`.

    Args:
        base_dir: The folder that remembers the store, and has Signatory's files.
        place: Where the store is.
        connect: Another way to reach it: the seam at which tests put their own server.
    """

    def __init__(self, base_dir: Path, place: FirestorePlace, connect: Connect = connect) -> None:
        self._base_dir = base_dir
        self._place = place
        self._connect = connect
        self._folder = MarksFolder(base_dir, place)

    def _run(self, work: Work[T]) -> T:
        """Do something with a connection of its own; callers may have an event loop that runs."""

        async def connected() -> T:
            async with await self._connect(self._place) as database:
                contents = Contents(database)
                try:
                    return await work(contents)
                finally:
                    await contents.aclose()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, connected()).result()

    # Looking

    def read(self) -> StoredMarks:
        """Return every mark; see `MarksAdmin.read`."""

        async def work(contents: Contents) -> StoredMarks:
            await self._usable(contents)
            return await contents.read()

        return self._run(work)

    async def _usable(self, contents: Contents) -> StoreDocument:
        store = await contents.store()
        if store is None:
            raise StateConflict(missing_text(self._place, self._had()))
        if not store.usable(self._place):
            raise StateConflict(unusable_text(self._place, store))
        return store

    def _had(self) -> FirestorePlace | None:
        remembered = remembered_store(self._base_dir)
        return None if remembered is None else remembered.place

    def describe(self) -> MarksDescription:
        """Look at the store; see `MarksAdmin.describe`."""
        self._folder.require_no_other()
        host = process_of(self._base_dir)

        async def work(contents: Contents) -> MarksDescription:
            store = await contents.store()
            if store is None:
                if had := self._had():
                    raise StateConflict(missing_text(self._place, had))
                return MarksDescription(host=host)
            self._folder.require_accepted(store)
            return MarksDescription(await contents.read(), host=host)

        return self._run(work)

    # Making

    def create(self) -> None:
        """Make the store; see `MarksAdmin.create`. Marks that Signatory has in the same collection are taken over, too."""
        make_base_dir(self._base_dir)
        with self._folder.held() as claim:
            theirs = self._folder.signatory.read()
            had = self._had()

            async def work(contents: Contents) -> tuple[str, int]:
                store = await contents.store()
                if store is None and had is not None:
                    raise StateConflict(missing_text(self._place, had))
                self._making(BY_INIT).require_replaceable(self._place, store)
                found = await contents.read(all_names=True)
                if found.refused:
                    raise StateConflict(f"{all_damaged_text(found.refused)}; or rebuild the marks with {REBUILD}")
                claim()
                return await self._made(contents, BY_INIT, union(found.marks, theirs))

            self._taken_into_use(*self._run(work))

    def _making(self, command: str, store_id: str = "") -> Making:
        return Making(store_id, command, self._folder.begun())

    async def _made(self, contents: Contents, command: str, marks: Mapping[MarkKey, Mark]) -> tuple[str, int]:
        """Make a store of these marks, or higher ones that are there; return its id, and how many."""
        store_id = self._folder.begin()
        await contents.begin_store(self._making(command, store_id))
        # All of them, whatever is there: so that both documents of an attestation, and the notes of chains, are whole.
        await contents.move(
            marks,
            lambda key, stored: merged(stored, marks[key]),
            lambda store: require_made(self._place, store, store_id),
        )
        await contents.open_store(store_id)
        return store_id, len(marks)

    def _taken_into_use(self, store_id: str, count: int) -> None:
        self._folder.remember(store_id)
        self._folder.signatory.note_elsewhere()
        extra = fields(place=str(self._place), store=store_id, marks=count)
        logger.info("watermark store made", extra=extra)

    def rebuild(self, rebuilt: Rebuilt, suffix: str) -> int:
        """Rebuild the store; see `MarksAdmin.rebuild`. Of the store nothing is put aside: no mark becomes lower."""
        make_base_dir(self._base_dir)
        with self._folder.held(whatever_was_signed=True) as claim:
            unreadable = unreadable_files(self._base_dir)
            theirs = read_signatory_marks(self._base_dir, without=unreadable)

            async def work(contents: Contents) -> tuple[str, int]:
                self._making(BY_REBUILD).require_replaceable(self._place, await contents.store())
                found = await contents.read(all_names=True)
                known = {key: mark or Mark(0, 0, None) for key, mark in found.refused.items()}
                marks = rebuilt.raised(union(union(found.marks, known), theirs), MAX_MARKS)
                claim()
                return await self._made(contents, BY_REBUILD, marks)

            store_id, count = self._run(work)
            with reporting(store_path(self._base_dir)):
                put_aside(unreadable, suffix)
            self._taken_into_use(store_id, count)
        return count

    # Changing

    def _change(self, work: Callable[[Contents, Check], Awaitable[T]]) -> T:
        with self._folder.held() as claim:

            async def accepted(contents: Contents) -> T:
                store_id = self._folder.require_accepted(await contents.store())
                claim()
                return await work(contents, lambda store: require_store(self._place, store, store_id))

            return self._run(accepted)

    def raise_mark(self, key: MarkKey, mark: Mark) -> None:
        """Move one mark up; see `MarksAdmin.raise_mark`."""
        require_in_range(mark)

        def new(_: MarkKey, stored: Mark | None) -> Mark:
            if stored is not None and not is_above(mark, stored):
                raise StateConflict(f"the mark for {key} is at {stored} and moves only up, so not to {mark}")
            return mark

        self._change(lambda contents, check: contents.change(key, new, check))

    def reset_mark(self, key: MarkKey, mark: Mark) -> Mark:
        """Move one mark anywhere; see `MarksAdmin.reset_mark`."""
        require_in_range(mark)
        theirs = self._folder.signatory.read().get(key)
        if theirs is not None and is_above(theirs, mark):
            raise StateConflict(
                f"Signatory's files in {self._base_dir} have the mark for {key} at {theirs}, and every start would bring it "
                "back: move them away first"
            )

        def new(_: MarkKey, stored: Mark | None) -> Mark:
            if stored is None:
                raise StateConflict(f"there is no mark for {key}: nothing to reset")
            return mark

        old = self._change(lambda contents, check: contents.change(key, new, check))
        if old is None:
            raise AssertionError("a mark was reset that was not there")
        return old

    def adopt(self, marks: Mapping[MarkKey, Mark]) -> int:
        """Raise marks to those of another store; see `MarksAdmin.adopt`."""
        return self._change(lambda contents, check: contents.raise_to(marks, check))

    def export(self) -> None:
        """Hand every mark to Signatory's files; see `MarksAdmin.export`.

        Signatory with `driver: gcp` needs none of this: it reads the same documents.
        """
        with self._folder.held() as claim:
            marks = self._run(self._whole)
            claim()
            self._folder.signatory.save(marks)
            self._folder.signatory.withdraw()
        logger.info("watermarks written for Signatory", extra=fields(base_dir=self._base_dir))

    async def _whole(self, contents: Contents) -> Mapping[MarkKey, Mark]:
        self._folder.require_accepted(await contents.store())
        return await all_marks(contents)

    def retire(self) -> None:
        """Leave every mark in Signatory's files, and let no host use the store any more; see `MarksAdmin.retire`."""
        with self._folder.held() as claim:
            self._run(self._whole)
            claim()
            self._run(self._handed_over)

    async def _handed_over(self, contents: Contents, repeated: str = "") -> Mapping[MarkKey, Mark]:
        remembered = remembered_store(self._base_dir)
        if remembered is None:
            raise StateConflict(missing_text(self._place))
        # First of all, signing on it stops: hosts on other machines go on until then.
        await contents.retire_store(remembered.store_id, repeated or self._folder.begin())
        marks = await all_marks(contents)
        self._folder.signatory.note_elsewhere()
        self._folder.signatory.save(marks)
        return marks


async def all_marks(contents: Contents) -> Mapping[MarkKey, Mark]:
    """Return every mark.

    Raises:
        ConfigError: Some are damaged.
    """
    stored = await contents.read()
    if stored.refused:
        raise StateConflict(all_damaged_text(stored.refused))
    return stored.marks
