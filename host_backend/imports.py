"""Imports of a program that serves, and its configuration: they are here to stay, and not looked through for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_to_stay() -> Iterator[None]:
    """Collect no garbage inside, and never search the objects that exist at the end.

    Modules bring some 150 000 objects and hardly any garbage; reading the configuration of 10 000 keys makes as many, and
    those that are not kept go by themselves. Searching them repeatedly takes a tenth of a start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
