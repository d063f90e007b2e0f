"""Files of some tens of kilobytes, in which every world sees how a file grows: chunks of few slots."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from host_backend.watermark.file import layout, opening, slots

#: Slots of a chunk; the product has 256.
_CHUNK_SLOTS = 4


@contextmanager
def small_files() -> Iterator[None]:
    """Let the product make small files meanwhile."""
    half = (1 + _CHUNK_SLOTS) * layout.BLOCK_BYTES
    sizes = [
        (layout, "CHUNK_SLOTS", _CHUNK_SLOTS),
        (layout, "HALF_CHUNK_BYTES", half),
        (layout, "CHUNK_BYTES", 2 * half),
        (opening, "MAX_SPARE_BYTES", 16 * 2 * half),
        (slots, "CHUNK_SLOTS", _CHUNK_SLOTS),
        (slots, "SPARE_SLOTS", 1),
        (slots, "_GROWTH_BYTES", 4 * layout.BLOCK_BYTES),
    ]
    with ExitStack() as stack:
        for module, name, value in sizes:
            stack.enter_context(patch.object(module, name, value))
        yield
