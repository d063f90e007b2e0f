"""Handles to opened keys, of one session, and how many there may be in all."""

from enclave_signer.curves import SigningKey
from enclave_signer.errors import KeyFault


class OpenKeys:
    """How many opened keys all sessions hold together: each takes some KiB of memory, and strangers can make them."""

    __slots__ = ("_count", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    def take(self) -> None:
        """Count one more.

        Raises:
            KeyFault: The daemon holds as many keys as it may.
        """
        if self._count >= self._limit:
            raise KeyFault(f"this enclave holds {self._limit} opened keys, the most it may: close other connections")
        self._count += 1

    def give_back(self, count: int) -> None:
        """Count some fewer."""
        self._count -= count


class Keychain:
    """Opened keys in the order they were opened; a handle is a key's index and means nothing elsewhere."""

    __slots__ = ("_keys", "_limit", "_open_keys")

    def __init__(self, limit: int, open_keys: OpenKeys) -> None:
        self._keys: list[SigningKey] = []
        self._limit = limit
        self._open_keys = open_keys

    def add(self, key: SigningKey) -> int:
        """Keep an opened key and return its handle.

        Raises:
            KeyFault: The session, or all of them, hold as many keys as they may.
        """
        if len(self._keys) >= self._limit:
            raise KeyFault(f"this connection holds {self._limit} keys, the most it may: use another connection")
        self._open_keys.take()
        self._keys.append(key)
        return len(self._keys) - 1

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
        self._open_keys.give_back(len(self._keys))
        self._keys.clear()
