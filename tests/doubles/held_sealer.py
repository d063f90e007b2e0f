"""A gate before whatever asks a sealer: it takes as long as a test likes, and no clock is needed."""

import threading

from tests.doubles.processes import PATIENCE_S


class HeldSealer:
    """Asked, before they are answered, by the calls that open or seal a key; a test says when it answers."""

    _ASKED_BY = (b"Import", b"ImportUnencrypted", b"Generate", b"GenerateAndImport", b"Reseal")

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: How many more it answers; None for all.
        self._more: int | None = None

    def hold(self) -> None:
        with self._changed:
            self._more = 0

    def release(self, count: int | None) -> None:
        with self._changed:
            self._more = None if count is None or self._more is None else self._more + count
            self._changed.notify_all()

    def wait(self, body: bytes) -> None:
        """Wait, if the call is one of those: a map of one entry, whose name begins at its third byte."""
        if not body[2:].startswith(self._ASKED_BY):
            return
        with self._changed:
            assert self._changed.wait_for(lambda: self._more != 0, PATIENCE_S)
            if self._more is not None:
                self._more -= 1
