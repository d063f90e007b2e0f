"""Documents of Firestore as values."""

from collections.abc import Mapping
from dataclasses import dataclass

#: Values of fields; one of another kind is read as None.
Field = int | str | bytes | bool | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was read.

    Attributes:
        path: From its collection on: `watermark/NetX/block/tz1`.
        fields: Its fields, by name.
        created: When it was made, by the service's clock, as a text that sorts; empty for one that is not there.
        version: Another one after every change.
    """

    path: str
    fields: Mapping[str, Field]
    created: str = ""
    version: tuple[int, int] = (0, 0)

    @property
    def id(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Write:
    """A document to be written; fields that are not named stay as they are, and one that is None is removed.

    Attributes:
        path: Of the document.
        fields: The fields to write.
        absent: Whether it must not be there.
        version: What it must be at; None when it does not matter.
        time_field: A field that gets the time of the service.
    """

    path: str
    fields: Mapping[str, Field]
    absent: bool = False
    version: tuple[int, int] | None = None
    time_field: str | None = None
