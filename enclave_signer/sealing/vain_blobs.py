"""How many blobs of each client under a gated key did not open lately: each cost the key's service an answer.

Anyone can make up blobs that name a key. Without a limit one client could have its service, or hardware that makes
evidence for it, busy with nothing else.
"""

import math
from collections import Counter

from enclave_signer.errors import NotReleased

#: Blobs of one client under one key that may fail to open within `retry_s`, besides those under way: a host has few damaged
#: ones, and comes again.
MAX_VAIN = 16
#: Clients that are counted apart, as many as there are connections; more share what one has.
MAX_CLIENTS = 256
_OTHERS = ""


class VainBlobs:
    """The blobs of one key.

    Args:
        period_s: Seconds after which they are forgotten.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._ends_at = -math.inf
        self._counts: Counter[str] = Counter()

    def check(self, client: str, time: float) -> None:
        """Return when one more blob of a client may be asked about.

        Raises:
            NotReleased: Too many did not open.
        """
        if time < self._ends_at and self._counts[self._counted_as(client)] >= MAX_VAIN:
            raise NotReleased(f"{MAX_VAIN} blobs of this client did not open: others are asked about later")

    def add(self, client: str, time: float) -> None:
        """Count a blob that did not open."""
        if time >= self._ends_at:
            self._counts.clear()
            self._ends_at = time + self._period_s
        self._counts[self._counted_as(client)] += 1

    def _counted_as(self, client: str) -> str:
        return client if client in self._counts or len(self._counts) < MAX_CLIENTS else _OTHERS
