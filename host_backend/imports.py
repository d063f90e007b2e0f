"""Imports of a program that serves: what they bring is here to stay, and is not looked through for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_to_stay() -> Iterator[None]:
    """Collect no garbage inside, nor ever what is there at the end.

    Modules bring some 150 000 objects and hardly any garbage. To look through them again and again is a tenth of a start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
