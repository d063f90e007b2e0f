"""What becomes of a whole store in Firestore: accepted by a host, filled from another driver, handed over to one."""

from collections.abc import Mapping

from host_backend.errors import ConfigError
from host_backend.watermark.file.place import held_folder
from host_backend.watermark.firestore.admin import FirestoreMarks, all_marks
from host_backend.watermark.firestore.contents import Contents
from host_backend.watermark.firestore.layout import LAYOUT, StoreDocument
from host_backend.watermark.firestore.place import remembered_store, unusable_text
from host_backend.watermark.rule import Mark, MarkKey, refused_text, union


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
        self._make_folder()
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
                store, remembered = await contents.store(), remembered_store(self._base_dir)
                # One that is retired already was the one that was accepted here, too.
                if store is None or not store.retired or remembered is None or remembered.store_id != store.store_id:
                    self._folder.require_accepted(store)
                await all_marks(contents)
                claim()
                return await self._handed_over(contents)

            return self._run(work)

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
                store = await contents.store()
                every = union(marks, theirs)
                if store is not None and store.layout > LAYOUT:
                    raise ConfigError(unusable_text(self._place, store))
                if store is not None and store.usable:
                    claim()
                    await contents.raise_to(every)
                    return store.store_id
                found = await contents.read(all_names=True)
                if found.refused:
                    raise ConfigError(refused_text(found.refused))
                claim()
                store_id, _ = await self._made(contents, union(found.marks, every))
                return store_id

            self._folder.remember(self._run(work))
