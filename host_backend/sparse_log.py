"""Warnings of what strangers can cause as often as they like: a flood must not fill the log."""

import asyncio
import logging
import math

from host_backend.log import fields

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
        loop = asyncio.get_running_loop()
        left_s = self._written + SPARSE_LOG_S - loop.time()
        if left_s <= 0:
            self._write(loop)
        elif self._unwritten == 1:
            loop.call_later(left_s, self._write, loop)

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._unwritten:
            logger.warning("%s", self._text, extra=fields(times=self._unwritten, **self._values))
            self._written = loop.time()
            self._unwritten = 0
