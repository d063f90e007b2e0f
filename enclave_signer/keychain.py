"""Handles to opened keys, of one session; and the opened keys of all sessions, which are remembered for a while.

- A handle belongs to one session and dies with it. The opened key behind it is shared: a session that asks for a blob
  that is open already gets it without the sealer, if it has the same credentials.
- After its last session an opened key is kept for `retain_s`, then dropped: a host that lost its connection gets its
  keys back although the sealer is away.
- How many keys are open is limited over all sessions, as each takes some KiB, and strangers can make them. A key counts
  once, however many handles there are to it. Remembered keys count as well, and make room, the oldest first.
- A key counts for the address that opened it first. One address has a share of the keys; beyond it, only its own
  remembered keys make room: a stranger cannot push out the keys that another machine's host will ask for.
"""

import math
from collections.abc import Callable, Iterator
from hashlib import blake2b

from enclave_signer.curves import SigningKey
from enclave_signer.errors import KeyFault, UnknownHandle
from enclave_signer.protocol import codec
from enclave_signer.protocol.messages import Credentials, Initialize, PublicKey


class OpenKey:
    """An opened key, how many handles there are to it, and for which address it counts."""

    __slots__ = ("address", "handles", "key", "place")

    def __init__(self, place: bytes, key: SigningKey, address: str) -> None:
        self.place = place
        self.key = key
        self.address = address
        self.handles = 0


class _Share:
    """How many keys count for one address, and which of them have no handle, the first to go first."""

    __slots__ = ("keys", "leaving")

    def __init__(self) -> None:
        self.keys = 0
        self.leaving: dict[bytes, None] = {}


class OpenKeys:
    """The opened keys of all sessions, each found by its place: the hash of its blob and of what opens it.

    Args:
        limit: Keys that are open or remembered.
        share: The same, of one address.
        retain_s: Seconds for which a key is remembered after its last handle; 0 remembers none.
        clock: Seconds that only go forward.
    """

    __slots__ = ("_clock", "_leaving", "_limit", "_opened", "_retain_s", "_share", "_shares")

    def __init__(self, limit: int, share: int, retain_s: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._share = share
        self._retain_s = retain_s
        self._clock = clock
        self._opened: dict[bytes, OpenKey] = {}
        self._shares: dict[str, _Share] = {}
        #: Until when the keys without a handle are remembered, the first to go first.
        self._leaving: dict[bytes, float] = {}

    def find(self, place: bytes) -> SigningKey | None:
        """Return the key of a place if it is open or remembered."""
        self.forget()
        opened = self._opened.get(place)
        return None if opened is None else opened.key

    def take(self, place: bytes, key: SigningKey, address: str) -> OpenKey:
        """Count one more handle; return its key: the one open at that place, else the one given.

        Raises:
            KeyFault: As many keys are open as may be, in all or of this address.
        """
        opened = self._opened.get(place)
        if opened is None:
            self._make_room(address)
            opened = self._opened[place] = OpenKey(place, key, address)
            self._shares.setdefault(address, _Share()).keys += 1
        elif not opened.handles:
            del self._leaving[place]
            del self._shares[opened.address].leaving[place]
        opened.handles += 1
        return opened

    def _make_room(self, address: str) -> None:
        share = self._shares.get(address)
        if share is not None and share.keys >= self._share:
            if not share.leaving:
                raise KeyFault(
                    f"this enclave holds {self._share} opened keys for your address, the most of one: "
                    "close other connections"
                )
            self._drop(next(iter(share.leaving)))
        elif len(self._opened) >= self._limit:
            if not self._leaving:
                raise KeyFault(
                    f"this enclave holds {self._limit} opened keys, the most it may: close other connections"
                )
            self._drop(next(iter(self._leaving)))

    def give_back(self, opened: OpenKey) -> None:
        """Count one handle less; after the last one the key is remembered for a while."""
        opened.handles -= 1
        if not opened.handles:
            # Every key is remembered for as long: the order of coming is the order of going.
            self._leaving[opened.place] = self._clock() + self._retain_s
            self._shares[opened.address].leaving[opened.place] = None
            if not self._retain_s:
                self._drop(opened.place)

    def public_keys(self) -> Iterator[PublicKey]:
        """Go through the public keys of all that is open or remembered."""
        return (opened.key.public_key for opened in self._opened.values())

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
        address = self._opened.pop(place).address
        share = self._shares[address]
        del share.leaving[place]
        share.keys -= 1
        if not share.keys:
            del self._shares[address]


class Keychain:
    """Opened keys in the order they were opened; a handle is a key's index and means nothing elsewhere."""

    __slots__ = ("_address", "_keys", "_limit", "_open_keys", "_scope")

    def __init__(self, limit: int, open_keys: OpenKeys, address: str) -> None:
        self._keys: list[OpenKey] = []
        self._limit = limit
        self._open_keys = open_keys
        self._address = address
        self._scope = b""

    def __len__(self) -> int:
        """Return the number of handles."""
        return len(self._keys)

    def open_for(self, credentials: Credentials) -> None:
        """Share opened keys with the sessions of the same credentials from now on."""
        self._scope = blake2b(codec.encode_request(Initialize(credentials))).digest()

    def find(self, blob: bytes) -> SigningKey | None:
        """Return the key of a blob if it is open, or remembered, for these credentials."""
        return self._open_keys.find(self._place(blob))

    def add(self, blob: bytes, key: SigningKey) -> int:
        """Keep the opened key of a blob and return its handle.

        Raises:
            KeyFault: The session, its address, or all of them, hold as many keys as they may.
        """
        if len(self._keys) >= self._limit:
            raise KeyFault(f"this connection holds {self._limit} keys, the most it may: use another connection")
        self._keys.append(self._open_keys.take(self._place(blob), key, self._address))
        return len(self._keys) - 1

    def public_keys_of_all(self) -> Iterator[PublicKey]:
        """Go through the public keys that are open in the process, for whichever session."""
        return self._open_keys.public_keys()

    def _place(self, blob: bytes) -> bytes:
        return blake2b(blob, key=self._scope).digest()

    def key(self, handle: int) -> SigningKey:
        """Return the key of a handle.

        Raises:
            UnknownHandle: No such handle on this connection.
        """
        if not 0 <= handle < len(self._keys):
            raise UnknownHandle(f"invalid handle: {handle} is not open on this connection")
        return self._keys[handle].key

    def close(self, most: int | None = None) -> bool:
        """Drop every key, or that many of them; return whether some are left. Do not use it any more."""
        for _ in range(len(self._keys) if most is None else min(most, len(self._keys))):
            self._open_keys.give_back(self._keys.pop())
        return bool(self._keys)
