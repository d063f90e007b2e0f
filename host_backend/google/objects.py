"""Objects of Cloud Storage as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was found.

    Attributes:
        name: Below the place's prefix.
        generation: Another one after every change; never 0.
        size: In bytes.
        crc32c: Of its content, in base64.
        created: When this generation was made, by the service's clock, as a text that sorts.
        metadata: Texts that its writer gave it.
    """

    name: str
    generation: int
    size: int
    crc32c: str
    created: str
    metadata: Mapping[str, str] = field(default_factory=dict)
