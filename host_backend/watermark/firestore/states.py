"""In which state the store in Firestore is: who may use it, who may make one in its place, and what to do otherwise.

- A store is used where it was made: documents that were copied elsewhere, as by a restore into another database, have
  marks of an earlier time under the id that every host has accepted.
- One that is being made holds marks that are too low. The command that began it may begin again, in the same folder: only
  there are the marks that it was to have. `rebuild` needs none, as it is given a level.
- One whose marks were moved away is taken back only by the folder that moved them.
- One of a later version is never touched.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from host_backend.config.google_places import FirestorePlace
from host_backend.errors import StateConflict
from host_backend.watermark.file.place import REBUILD
from host_backend.watermark.firestore.layout import LAYOUT, StoreDocument

#: The commands that make a store, as its document and the texts name them.
BY_INIT, BY_REBUILD, BY_MIGRATE = "init", "rebuild", "migrate"


@dataclass(frozen=True, slots=True)
class Making:
    """How a store is being made.

    Attributes:
        store_id: The id of the new store.
        command: Which command makes it.
        begun: Ids of stores and moves that the same folder has begun before.
    """

    store_id: str
    command: str
    begun: Iterable[str]

    def require_replaceable(self, place: FirestorePlace, store: StoreDocument | None) -> None:
        """Pass where the new store may replace the present one.

        Raises:
            ConfigError: It may not; the text says what to do.
        """
        if store is None:
            return
        if self.command == BY_REBUILD:
            if store.layout > LAYOUT:
                raise StateConflict(unusable_text(place, store))
            return
        if store.usable(place):
            raise StateConflict(
                f"{place} has a watermark store: one is never overwritten, and there is nothing to make"
            )
        here = store.place == place.name
        unfinished = store.layout == 0 and store.made_by == self.command and store.store_id in self.begun
        taken_back = store.layout == LAYOUT and self.command == BY_MIGRATE and store.retired_by in self.begun
        if not here or not (unfinished or taken_back):
            raise StateConflict(unusable_text(place, store))


def require_store(place: FirestorePlace, store: StoreDocument | None, store_id: str) -> StoreDocument:
    """Return the store, which is the one that was accepted, and can be used.

    Raises:
        ConfigError: It is not, or not any more; the text says what to do.
    """
    if store is None:
        raise StateConflict(missing_text(place, place))
    if store.store_id != store_id or not store.usable(place):
        raise StateConflict(unusable_text(place, store))
    return store


def require_made(place: FirestorePlace, store: StoreDocument | None, store_id: str) -> StoreDocument:
    """Return the store that is being made, or was opened a moment ago.

    Raises:
        ConfigError: Another one is there: the text says which.
    """
    if store is None:
        raise StateConflict(missing_text(place, place))
    if store.store_id != store_id:
        raise StateConflict(
            f"another watermark store was begun meanwhile, by another host: {unusable_text(place, store)}"
        )
    return store


def missing_text(place: FirestorePlace, had: FirestorePlace | None = None) -> str:
    """Return what to do where there is no store.

    Args:
        place: Where there is none.
        had: Where this host had one.
    """
    way = (
        f"; this host had one in {had}"
        if had
        else "; if its keys have never signed, or Signatory's marks are there, make one with `enclave-host watermark init`"
    )
    return (
        f"no watermark store in {place}: check project, database and collection{way}; or rebuild the marks "
        f"with {REBUILD}"
    )


def unusable_text(place: FirestorePlace, store: StoreDocument) -> str:
    """Return why marks cannot be judged by a store, and what to do."""
    what = f"the watermark store in {place}"
    if store.layout > LAYOUT:
        return f"{what} has layout {store.layout}, this version knows {LAYOUT}: use a later version"
    if store.layout < 0 or not store.store_id or not store.place:
        return f"{what} is damaged: its document does not say which store it is: rebuild the marks with {REBUILD}"
    if store.place != place.name:
        return (
            f"{what} is a copy of the one in Firestore {store.place}, and what was signed since is not in it: correct "
            f"project, database and collection; if the other one is lost, rebuild the marks with {REBUILD}"
        )
    if store.layout == 0:
        return f"{what} was not completed: {_repeat(store.made_by)}"
    if store.retired_by:
        return (
            f"the marks of {what} were moved away: sign where they were moved to; if they are lost there, rebuild the marks "
            f"with {REBUILD}"
        )
    return f"{what} is {store.store_id}, another one than at the start: restart the host"


def _repeat(command: str) -> str:
    if command in {BY_INIT, BY_MIGRATE}:
        return (
            f"repeat `enclave-host watermark {command}` on the host that began it; if that one is lost, rebuild the marks "
            f"with {REBUILD}"
        )
    return f"repeat {REBUILD}"
