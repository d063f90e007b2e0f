"""Where keys and marks are kept, as values that answer for themselves: `stores` opens what each of them means."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from enclave_signer.protocol.key_types import KeyType

#: What the names of places have in them where keys are that Signatory does not know.
_APART = "_".join(key_type.facts.address for key_type in KeyType if key_type.facts.experimental)


@dataclass(frozen=True, slots=True)
class KeysInFile:
    """Sealed keys in Signatory's key file."""

    path: Path

    def describe(self) -> str:
        """Return in words where the keys are."""
        return f"sealed keys in {self.path}"

    def beside(self) -> "KeysInFile":
        """Return the file beside this one for keys that Signatory does not know."""
        return KeysInFile(self.path.with_name(f"{self.path.stem}.{_APART}{self.path.suffix}"))

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money, each beginning with the field below `storage`; nothing here."""
        yield from ()


@dataclass(frozen=True, slots=True)
class FirestorePlace:
    """A collection of a Firestore database, and what it is asked with.

    Attributes:
        project: The project's id.
        database: The database's id; `(default)` is one.
        collection: A collection at the top of it.
        credentials_file: A file with credentials.
        credentials_data: The credentials themselves, as JSON; they count before the file. With neither the machine's own
            identity is used.
    """

    project: str
    database: str
    collection: str
    credentials_file: Path | None = None
    credentials_data: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Which collection it is, for every host."""
        return f"{self.project}/{self.database}/{self.collection}"

    def __str__(self) -> str:
        return f"Firestore {self.name}"


@dataclass(frozen=True, slots=True)
class KeysInFirestore:
    """Sealed keys in Signatory's collection of Firestore."""

    place: FirestorePlace

    def describe(self) -> str:
        """Return in words where the keys are."""
        return f"sealed keys in {self.place}"

    def beside(self) -> "KeysInFirestore":
        """Return the collection beside this one for keys that Signatory does not know."""
        return KeysInFirestore(replace(self.place, collection=f"{self.place.collection}_{_APART}"))

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money; see `KeysInFile.dangers`."""
        yield from ()


@dataclass(frozen=True, slots=True)
class KeysApart:
    """Sealed keys of two kinds: those that Signatory knows where it reads them, all others beside them.

    Attributes:
        shared: Where Signatory reads, too.
        own: Where only this host reads.
    """

    shared: KeysInFile | KeysInFirestore
    own: KeysInFile | KeysInFirestore

    def describe(self) -> str:
        """Return in words where the keys are."""
        return f"{self.shared.describe()}, those that Signatory does not know: {self.own.describe()}"

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money; see `KeysInFile.dangers`."""
        yield from self.shared.dangers()


@dataclass(frozen=True, slots=True)
class MarksInFile:
    """Marks in a file of a folder."""

    driver: ClassVar = "file"
    #: Whether marks outlive the host.
    lasts: ClassVar = True

    #: Whether the folder may be on a file system that is empty after a restart of the machine.
    allow_memory_file_system: bool = False

    def describe(self) -> str:
        """Return in words where the marks are."""
        return self.driver

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money, each beginning with the field below `watermark`."""
        if self.allow_memory_file_system:
            yield (
                "config.allow_memory_file_system: marks on a file system in memory are forgotten at a restart of the "
                "machine: leave it out, and use a local disk"
            )


@dataclass(frozen=True, slots=True)
class MarksInMemory:
    """Marks that are gone when the host stops."""

    driver: ClassVar = "mem"
    lasts: ClassVar = False

    def describe(self) -> str:
        """Return in words where the marks are."""
        return self.driver

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money; see `MarksInFile.dangers`."""
        yield "driver: marks in memory are forgotten at every stop, so a restart can sign twice: use file"


@dataclass(frozen=True, slots=True)
class MarksInFirestore:
    """Marks in Signatory's documents of Firestore, which several hosts can share."""

    driver: ClassVar = "gcp"
    lasts: ClassVar = True

    place: FirestorePlace

    def describe(self) -> str:
        """Return in words where the marks are."""
        return f"{self.driver}, {self.place}"

    def dangers(self) -> Iterator[str]:
        """Yield what could cost money; see `MarksInFile.dangers`."""
        yield from ()


#: Where the keys of a vault can be kept, and where marks can.
KeyStorage = KeysInFile | KeysInFirestore | KeysApart
MarkStorage = MarksInFile | MarksInMemory | MarksInFirestore
