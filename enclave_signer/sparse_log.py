"""Warnings of what strangers can cause as often as they like: a flood must not fill the log."""

import contextvars
import logging
import math

import trio

from enclave_signer.log import fields

logger = logging.getLogger(__name__)

#: Seconds between two warnings of one kind.
SPARSE_LOG_S = 10.0


class SparseLog:
    """Warnings of one kind: the first at once, then one per `SPARSE_LOG_S`, the last, that says how many there were."""

    def __init__(self) -> None:
        self._unwritten = 0
        self._written = -math.inf
        self._text = ""
        self._values: dict[str, object] = {}

    def warn(self, text: str, **values: object) -> None:
        """Count, and write the warning if it is time for one, else then.

        Args:
            text: The warning.
            values: Its fields.
        """
        self._unwritten += 1
        self._text, self._values = text, values
        left_s = self._written + SPARSE_LOG_S - trio.current_time()
        if left_s <= 0:
            self._write()
        elif self._unwritten == 1:
            trio.lowlevel.spawn_system_task(self._write_later, left_s, context=contextvars.copy_context())

    def tell(self, text: str) -> None:
        """Do the same for a text without fields."""
        self.warn(text)

    async def _write_later(self, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        finally:
            # Also when the daemon ends.
            if self._unwritten:
                self._write()

    def _write(self) -> None:
        logger.warning("%s", self._text, extra=fields(times=self._unwritten, **self._values))
        self._written = trio.current_time()
        self._unwritten = 0
