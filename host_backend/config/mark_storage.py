"""Where marks are kept, as values that answer for themselves. `stores` opens what each means."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from host_backend.config.google_places import FirestorePlace


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
