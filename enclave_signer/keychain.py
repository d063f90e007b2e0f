"""Handles to opened keys, of one session; and the opened keys of all sessions, which are remembered for a while.

- A handle belongs to one session and dies with it. The opened key behind it is shared: a session that asks for a blob
  that is open already gets it without the sealer, if it has the same credentials.
- After its last session an opened key is kept for `retain_s`, then dropped: a host that lost its connection gets its
  keys back although the sealer is away.
- How many keys are open is limited over all sessions: each takes some KiB, and strangers can make them. Remembered keys
  count as well, and make room, the oldest first, for those that a session asks for.
"""

import math
from collections.abc import Callable
from hashlib import blake2b

from enclave_signer.curves import SigningKey
from enclave_signer.errors import KeyFault
from enclave_signer.protocol import codec
from enclave_signer.protocol.messages import Credentials, Initialize


class _Opened:
    """An opened key, and how many handles there are to it."""

    __slots__ = ("handles", "key")

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self.handles = 0


class OpenKeys:
    """The opened keys of all sessions, each found by its place: the hash of its blob and of what opens it.

    Args:
        limit: Handles and remembered keys together.
        retain_s: Seconds for which a key is remembered after its last handle; 0 remembers none.
        clock: Seconds that only go forward.
    """

    __slots__ = ("_clock", "_handles", "_leaving", "_limit", "_opened", "_retain_s")

    def __init__(self, limit: int, retain_s: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._retain_s = retain_s
        self._clock = clock
        self._opened: dict[bytes, _Opened] = {}
        #: Until when the keys without a handle are remembered, the first to go first.
        self._leaving: dict[bytes, float] = {}
        self._handles = 0

    def find(self, place: bytes) -> SigningKey | None:
        """Return the key of a place if it is open or remembered."""
        self.forget()
        opened = self._opened.get(place)
        return None if opened is None else opened.key

    def take(self, place: bytes, key: SigningKey) -> SigningKey:
        """Count one more handle; return the key for it: the one that is open at that place, else the one given.

        Raises:
            KeyFault: As many keys are open as may be.
        """
        self._leaving.pop(place, None)
        if self._handles + len(self._leaving) >= self._limit:
            self._make_room()
        opened = self._opened.get(place)
        if opened is None:
            opened = self._opened[place] = _Opened(key)
        opened.handles += 1
        self._handles += 1
        return opened.key

    def _make_room(self) -> None:
        if not self._leaving:
            raise KeyFault(f"this enclave holds {self._limit} opened keys, the most it may: close other connections")
        self._drop(next(iter(self._leaving)))

    def give_back(self, place: bytes) -> None:
        """Count one handle less; after the last one the key is remembered for a while."""
        opened = self._opened[place]
        opened.handles -= 1
        self._handles -= 1
        if not opened.handles:
            # Every key is remembered for as long: the order of coming is the order of going.
            self._leaving[place] = self._clock() + self._retain_s
            if not self._retain_s:
                self._drop(place)

    def forget(self) -> float:
        """Drop the keys whose time is over; return when the next one's will be, infinity when none is remembered."""
        now = self._clock()
        while self._leaving:
            place, until = next(iter(self._leaving.items()))
            if until > now:
                return until
            self._drop(place)
        return math.inf

    def _drop(self, place: bytes) -> None:
        del self._leaving[place]
        del self._opened[place]


class Keychain:
    """Opened keys in the order they were opened; a handle is a key's index and means nothing elsewhere."""

    __slots__ = ("_keys", "_limit", "_open_keys", "_places", "_scope")

    def __init__(self, limit: int, open_keys: OpenKeys) -> None:
        self._keys: list[SigningKey] = []
        self._places: list[bytes] = []
        self._limit = limit
        self._open_keys = open_keys
        self._scope = b""

    def open_for(self, credentials: Credentials) -> None:
        """Share opened keys with the sessions of the same credentials from now on."""
        self._scope = blake2b(codec.encode_request(Initialize(credentials))).digest()

    def find(self, blob: bytes) -> SigningKey | None:
        """Return the key of a blob if it is open, or remembered, for these credentials."""
        return self._open_keys.find(self._place(blob))

    def add(self, blob: bytes, key: SigningKey) -> int:
        """Keep the opened key of a blob and return its handle.

        Raises:
            KeyFault: The session, or all of them, hold as many keys as they may.
        """
        if len(self._keys) >= self._limit:
            raise KeyFault(f"this connection holds {self._limit} keys, the most it may: use another connection")
        place = self._place(blob)
        self._keys.append(self._open_keys.take(place, key))
        self._places.append(place)
        return len(self._keys) - 1

    def _place(self, blob: bytes) -> bytes:
        return blake2b(blob, key=self._scope).digest()

    def key(self, handle: int) -> SigningKey:
        """Return the key of a handle.

        Raises:
            KeyFault: No such handle on this connection.
        """
        if not 0 <= handle < len(self._keys):
            raise KeyFault(f"invalid handle: {handle} is not open on this connection")
        return self._keys[handle]

    def close(self) -> None:
        """Drop every key; no handle is good any more."""
        for place in self._places:
            self._open_keys.give_back(place)
        self._keys.clear()
        self._places.clear()
