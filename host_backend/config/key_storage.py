"""Where a vault keeps its sealed keys: `storage`, as values that answer for themselves. `stores` opens what each means.

A new one is a class of `Place` and a member of `KeyPlace`: the configuration, its review and `doctor` need no more.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, get_args

from host_backend.config.addresses import expanded
from host_backend.config.bucket import FIELDS as BUCKET_FIELDS
from host_backend.config.bucket import parse_bucket
from host_backend.config.firestore import FIELDS as FIRESTORE_FIELDS
from host_backend.config.firestore import parse_place
from host_backend.config.google_places import BucketPlace, FirestorePlace
from host_backend.yaml_document import Value, given

KEY_FILE = "confidential_space_keys.json"
KEY_COLLECTION = "encrypted_keys"
#: What the names of places have in them where keys are that Signatory does not know: the address of the first kind of
#: these, whatever other kinds come, as keys must stay where they are.
_APART = "tz5"


@dataclass(frozen=True, slots=True)
class Section:
    """`storage` as it is written.

    Attributes:
        value: All of it.
        config: Its field `config`; None where there is none.
        base_dir: Where files are that are not named.
        warnings: Gets what means less than it seems.
    """

    value: Value
    config: Value | None
    base_dir: Path
    warnings: list[str]

    def settings(self, names: tuple[str, ...]) -> tuple[Value, dict[str, Value]]:
        """Return what the fields of `config` are below, and those that are there; errors show no text of theirs."""
        place = (self.config or self.value).secretive()
        return place, place.record(names) if self.config else {}


class Place(ABC):
    """Where sealed keys are."""

    __slots__ = ()

    #: What a configuration calls its driver; it may have several names.
    drivers: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def read(cls, section: Section) -> Self:
        """Return the place that a section names.

        Raises:
            ConfigError: With file, line and dotted path of each fault.
        """

    @abstractmethod
    def __str__(self) -> str:
        """Return the place, for people."""

    @abstractmethod
    def beside(self) -> Self | None:
        """Return the place beside this one for keys that Signatory does not know; None where Signatory does not read."""

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money, each beginning with the field below `storage`; nothing if it is not said."""
        yield from ()

    @property
    def in_words(self) -> str:
        """The place, in a sentence."""
        return str(self)

    @property
    def file(self) -> Path | None:
        """The file in which the keys are; None where they are in none, or in many."""
        return None

    def describe(self) -> str:
        """Return in words where the keys are."""
        return f"sealed keys in {self}"

    @property
    def places(self) -> tuple[Self, ...]:
        """This one; see `KeysApart.places`."""
        return (self,)

    def identity(self) -> str:
        """Return what no two vaults may have the same of.

        Raises:
            OSError: It cannot be found.
        """
        return str(self)


@dataclass(frozen=True, slots=True)
class KeysInFile(Place):
    """Sealed keys in Signatory's key file."""

    drivers = ("file",)

    path: Path

    @classmethod
    def read(cls, section: Section) -> Self:
        """Return the file that is named, or the usual one; see `Place.read`."""
        if section.config is None or section.config.is_null:
            return cls(section.base_dir / KEY_FILE)
        return cls(Path(expanded(section.config)))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def in_words(self) -> str:
        """The file, in a sentence."""
        return f"the key file {self.path}"

    @property
    def file(self) -> Path:
        """The file."""
        return self.path

    def beside(self) -> Self:
        """Return the file beside this one; see `Place.beside`."""
        return replace(self, path=self.path.with_name(f"{self.path.stem}.{_APART}{self.path.suffix}"))

    def identity(self) -> str:
        """Return where the path leads, past symbolic links; see `Place.identity`."""
        # Only `stat` reports a circle of links in every version of Python.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            self.path.stat()
        return os.path.realpath(self.path)


@dataclass(frozen=True, slots=True)
class KeysInFirestore(Place):
    """Sealed keys in Signatory's collection of Firestore."""

    drivers = ("gcp", "firestore")

    place: FirestorePlace

    @classmethod
    def read(cls, section: Section) -> Self:
        """Return the collection; see `Place.read`."""
        place, settings = section.settings(FIRESTORE_FIELDS)
        return cls(parse_place(place, settings, KEY_COLLECTION, section.warnings))

    def __str__(self) -> str:
        return str(self.place)

    def beside(self) -> Self:
        """Return the collection beside this one; see `Place.beside`."""
        return replace(self, place=replace(self.place, collection=f"{self.place.collection}_{_APART}"))


@dataclass(frozen=True, slots=True)
class KeysInBucket(Place):
    """Sealed keys in Cloud Storage, where Signatory does not read: keys of all kinds can be in one place."""

    drivers = ("gcs",)

    place: BucketPlace

    @classmethod
    def read(cls, section: Section) -> Self:
        """Return the objects; see `Place.read`."""
        return cls(parse_bucket(*section.settings(BUCKET_FIELDS)))

    def __str__(self) -> str:
        return str(self.place)

    def beside(self) -> None:
        """Return nothing; see `Place.beside`."""


#: Where keys can be; the first is meant where no driver is named.
KeyPlace = KeysInFile | KeysInFirestore | KeysInBucket


@dataclass(frozen=True, slots=True)
class KeysApart:
    """Sealed keys of two kinds: those that Signatory knows where it reads them, all others beside them.

    Attributes:
        shared: Where Signatory reads, too.
        own: Where only this host reads.
    """

    shared: KeyPlace
    own: KeyPlace

    def describe(self) -> str:
        """Return in words where the keys are."""
        return f"{self.shared.describe()}, those that Signatory does not know: {self.own.describe()}"

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money; see `Place.dangers`."""
        yield from self.shared.dangers()

    @property
    def places(self) -> tuple[KeyPlace, ...]:
        """Both."""
        return (self.shared, self.own)


KeyStorage = KeyPlace | KeysApart

_PLACES: tuple[type[KeyPlace], ...] = get_args(KeyPlace)
KEY_DRIVERS: dict[str, type[KeyPlace]] = {name: place for place in _PLACES for name in place.drivers}


def parse_key_storage(value: Value | None, base_dir: Path, warnings: list[str], *, apart: bool) -> KeyStorage:
    """Return where the keys of a vault are.

    Args:
        value: The field `storage` of its `config`.
        base_dir: Where key files are that are not named.
        warnings: Gets what means less than it seems.
        apart: Whether keys that Signatory does not know have a place of their own, where it reads the others.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    shared = _shared(value, base_dir, warnings)
    own = shared.beside() if apart else None
    return shared if own is None else KeysApart(shared, own)


def _shared(value: Value | None, base_dir: Path, warnings: list[str]) -> KeyPlace:
    if value is None:
        return KeysInFile(base_dir / KEY_FILE)
    fields = value.record(("driver", "config"))
    named = given(fields, "driver")
    place = _PLACES[0] if named is None else KEY_DRIVERS[named.choice(dict.fromkeys(KEY_DRIVERS, ""))]
    return place.read(Section(value, fields.get("config"), base_dir, warnings))
