"""Failures of a gated key that are remembered: for how long they answer which blobs, and which blobs may say so.

- A failure that is about the key answers all blobs. One of blobs answers these, until as many were refused as
  `MAX_REFUSED` says: then all.
- A blob's refusal counts only where it opened before: anyone can make up a blob that does not open.
"""

import math
from hashlib import blake2b

from enclave_signer.errors import ReleaseDenied, SealingError, SealingRefused

#: Blobs under a key that are asked about within `retry_s` while blobs are refused: one more than a rotation may leave behind
#: by mistake, and few enough for a service that refuses them all.
MAX_REFUSED = 4
#: Blobs of a key that are known to have opened, 100 bytes each: more than most hosts have under one.
MAX_OPENED = 4096


class Refusals:
    """Failures of one key, and which of its blobs opened.

    Args:
        retry_s: Seconds for which a failure is remembered.
    """

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._failure: SealingError | None = None
        self._until = -math.inf
        #: Which blobs the failure came of; none: of the key.
        self._refused: set[bytes] = set()
        #: The blob that opened last, and whether it was refused since.
        self._good: bytes | None = None
        self._in_doubt = False
        #: Digests of blobs, the one that opened last at the end.
        self._opened: dict[bytes, None] = {}
        #: When it was denied last.
        self.denied_at = -math.inf

    @property
    def trusted(self) -> bytes | None:
        """A blob that should open whenever the key is released."""
        return None if self._in_doubt else self._good

    def opened_before(self, blob: bytes) -> bool:
        """Whether a blob opened before."""
        return _digest(blob) in self._opened

    def counts(self, blob: bytes, error: Exception) -> bool:
        """Whether an error of a blob may be about the key."""
        refused_again = self._in_doubt and isinstance(error, SealingRefused) and self.opened_before(blob)
        return refused_again or blob == self._good

    def lately(self, time: float) -> bool:
        """Whether a failure is remembered."""
        return time < self._until

    def answer(self, blob: bytes, time: float) -> SealingError | None:
        """Return the failure that is remembered and answers a blob, too."""
        return self.last(blob) if self.lately(time) else None

    def last(self, blob: bytes) -> SealingError | None:
        """Return the last failure, unless it came of other blobs, and of so few that this one may still open."""
        of_others = self._refused and blob not in self._refused and len(self._refused) < MAX_REFUSED
        return None if of_others else self._failure

    def add(self, failure: SealingError, blob: bytes | None, time: float) -> bool:
        """Remember a failure, and the blob that it came of; None: it is about the key. Return whether it says something new."""
        if blob is None or not self.lately(time):
            self._refused.clear()
        if blob is not None:
            self._in_doubt = True
            self._refused.add(blob)
        if isinstance(failure, ReleaseDenied):
            self.denied_at = time
        new = str(failure) != str(self._failure)
        self._failure, self._until = failure, time + self._retry_s
        return new

    def end(self) -> bool:
        """Forget the failures: the key was released. Return whether it was not before."""
        new = self._good is None or self._failure is not None
        self._failure, self._until, self._in_doubt = None, -math.inf, False
        self._refused.clear()
        return new

    def opened(self, blob: bytes) -> None:
        """Remember that a blob opened."""
        self._good = blob
        digest = _digest(blob)
        self._opened.pop(digest, None)
        self._opened[digest] = None
        if len(self._opened) > MAX_OPENED:
            del self._opened[next(iter(self._opened))]


def _digest(blob: bytes) -> bytes:
    return blake2b(blob, digest_size=16).digest()
