"""Handles to opened keys, of one session."""

from enclave_signer.curves import SigningKey
from enclave_signer.errors import KeyFault


class Keychain:
    """Opened keys in the order they were opened; a handle is a key's index and means nothing elsewhere."""

    __slots__ = ("_keys", "_limit")

    def __init__(self, limit: int) -> None:
        self._keys: list[SigningKey] = []
        self._limit = limit

    def add(self, key: SigningKey) -> int:
        """Keep an opened key and return its handle.

        Raises:
            KeyFault: The session holds as many keys as it may.
        """
        if len(self._keys) >= self._limit:
            raise KeyFault(f"this connection holds {self._limit} keys, the most it may: use another connection")
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
