"""Places in Google's cloud; and where marks are kept, as values that answer for themselves: `stores` opens what each means."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


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
class BucketPlace:
    """The objects of a bucket of Cloud Storage below a prefix, and what they are asked for with.

    Attributes:
        bucket: The bucket's name.
        prefix: What all names begin with; it ends with a slash.
        project: The id of the project that pays for the calls, where the bucket has its callers pay.
        credentials_file: A file with credentials.
        credentials_data: See `FirestorePlace`.
    """

    bucket: str
    prefix: str
    project: str | None = None
    credentials_file: Path | None = None
    credentials_data: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.prefix}"


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


#: Where marks can be kept.
MarkStorage = MarksInFile | MarksInMemory | MarksInFirestore
