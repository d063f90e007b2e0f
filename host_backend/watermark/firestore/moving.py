"""What becomes of a whole store in Firestore: accepted by a host, filled from another driver, handed over to one."""

from collections.abc import Mapping

from host_backend.errors import ConfigError, StateConflict
from host_backend.watermark.file.place import held_folder, make_base_dir
from host_backend.watermark.firestore.admin import FirestoreMarks, all_marks
from host_backend.watermark.firestore.contents import Contents
from host_backend.watermark.firestore.layout import StoreDocument
from host_backend.watermark.firestore.place import remembered_store
from host_backend.watermark.firestore.states import BY_MIGRATE, require_store
from host_backend.watermark.rule import Mark, MarkKey, all_damaged_text, union


class WholeStore(FirestoreMarks):
    """A `MarksAdmin` of a store that can be moved."""

    def accept(self, store_id: str) -> None:
        """Remember the store in Firestore as the one that this host signs on.

        Args:
            store_id: Its id, as the operator knows it.

        Raises:
            ConfigError: There is none, or it is another one.
        """
        if not store_id:
            raise ConfigError(
                "--accept-store needs the id of the store: `enclave-host serve` without it says which one is there"
            )
        make_base_dir(self._base_dir)
        with self._folder.held() as claim:

            async def work(contents: Contents) -> StoreDocument:
                return await self._usable(contents)

            store = self._run(work)
            if store.store_id != store_id:
                raise ConfigError(f"the watermark store in {self._place} is {store.store_id}, not {store_id[:64]!r}")
            claim()
            self._folder.remember(store_id)

    def hand_over(self) -> Mapping[MarkKey, Mark]:
        """Do what `retire` does, or do it to its end after it was interrupted; return the marks."""
        with self._folder.held() as claim:

            async def work(contents: Contents) -> Mapping[MarkKey, Mark]:
                store, repeated = await contents.store(), ""
                if store is not None and self._moved_from_here(store):
                    repeated = store.retired_by
                else:
                    self._folder.require_accepted(store)
                await all_marks(contents)
                claim()
                return await self._handed_over(contents, repeated)

            return self._run(work)

    def _moved_from_here(self, store: StoreDocument) -> bool:
        """Tell whether it is the store that was accepted here, and this folder has begun to move its marks."""
        remembered = remembered_store(self._base_dir)
        accepted = remembered is not None and remembered.store_id == store.store_id
        return accepted and store.place == self._place.name and store.retired_by in self._folder.begun()

    def require_taking_over(self) -> None:
        """Pass where the content of Firestore allows `take_over`.

        Raises:
            ConfigError: It would be; the text says why.
        """

        async def work(contents: Contents) -> None:
            store = await contents.store()
            if store is None or not store.usable(self._place):
                self._making(BY_MIGRATE).require_replaceable(self._place, store)

        self._run(work)

    def forget(self) -> None:
        """Let the folder remember no store, once its marks are kept by another driver."""
        self._folder.forget()

    def take_over(self, marks: Mapping[MarkKey, Mark]) -> None:
        """Raise the marks of the store to those of another driver of this folder, and accept it; make one if there is none.

        May be repeated. The other driver's store is put aside by the caller, afterwards.
        """
        with held_folder(self._base_dir) as claim:
            theirs = self._folder.signatory.read()

            async def work(contents: Contents) -> str:
                store, every = await contents.store(), union(marks, theirs)
                if store is not None and store.usable(self._place):
                    claim()
                    store_id = store.store_id
                    await contents.raise_to(every, lambda store: require_store(self._place, store, store_id))
                    return store_id
                self._making(BY_MIGRATE).require_replaceable(self._place, store)
                found = await contents.read(all_names=True)
                if found.refused:
                    raise StateConflict(all_damaged_text(found.refused))
                claim()
                store_id, _ = await self._made(contents, BY_MIGRATE, union(found.marks, every))
                return store_id

            self._folder.remember(self._run(work))
