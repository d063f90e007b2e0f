"""Warnings of what strangers can cause as often as they like: a flood must not fill the log."""

import logging
import math
import time
from collections.abc import Callable

from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Seconds between two warnings of one kind.
SPARSE_LOG_S = 10.0


class SparseLog:
    """Warnings of one kind: the first at once, then one per `SPARSE_LOG_S` that says how many there were.

    Args:
        clock: Seconds since any moment; never set back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._untold = 0
        self._told = -math.inf

    def warn(self, text: str, **values: object) -> None:
        """Count, and write the warning if it is time for one.

        Args:
            text: The warning.
            values: Its fields.
        """
        self._untold += 1
        now = self._clock()
        if now - self._told >= SPARSE_LOG_S:
            logger.warning("%s", text, extra=fields(times=self._untold, **values))
            self._told = now
            self._untold = 0
