"""The keys that may be used (an allow-list of ids), each opened at its first use and remembered until the program ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from enclave_signer.keyprovider.errors import BadRequest, KekDamaged, KekUnavailable, NotAllowed
from enclave_signer.keyprovider.kek_source import KekSource
from enclave_signer.keyprovider.packets import KEK_BYTES

#: Seconds for a key to be opened: more than any sealer takes, which take 25 s at most.
OPENING_S = 30.0
#: Characters of a client's word in a refusal.
_SHOWN_CHARS = 200


@dataclass(slots=True)
class Kek:
    """One key.

    Attributes:
        key_id: As packets name it.
        source: Where it comes from.
        wrap: Whether layers may be wrapped under it; all are unwrapped.
    """

    key_id: str
    source: KekSource
    wrap: bool
    _opened: bytes | None = field(default=None, repr=False)
    _one_at_a_time: trio.Lock = field(default_factory=trio.Lock, repr=False)

    async def opened(self) -> bytes:
        """Return its 32 bytes, asking for them once however many clients want it.

        Raises:
            KeyproviderError: It cannot be had.
        """
        with trio.move_on_after(OPENING_S):
            async with self._one_at_a_time:
                if self._opened is None:
                    self._opened = _checked(self.key_id, await self.source.fetch())
                return self._opened
        raise KekUnavailable(f"the key {self.key_id!r} was not opened within {OPENING_S:g} s")


def _checked(key_id: str, kek: bytes) -> bytes:
    if len(kek) != KEK_BYTES:
        raise KekDamaged(f"the key {key_id!r} has {len(kek)} bytes, it must have {KEK_BYTES}: not base64, no line end")
    return kek


class Keks:
    """The allow-list.

    Args:
        keks: By id, at least one.
    """

    def __init__(self, keks: Mapping[str, Kek]) -> None:
        self._keks = keks

    def to_unwrap(self, key_id: str) -> Kek:
        """Return the key of a packet.

        Raises:
            NotAllowed: It is not listed.
        """
        if key_id not in self._keks:
            raise NotAllowed(f"the key {key_id[:_SHOWN_CHARS]!r} is not listed under keks")
        return self._keks[key_id]

    def to_wrap(self, key_id: str | None) -> Kek:
        """Return the key that a client asks for; where it names none, the only one that wraps.

        Raises:
            NotAllowed: It is not listed, or does not wrap.
            BadRequest: None is named, and not exactly one wraps.
        """
        if key_id is None:
            wrapping = [kek for kek in self._keks.values() if kek.wrap]
            if len(wrapping) != 1:
                raise BadRequest(f"name a key: {len(wrapping)} keys are configured with wrap = true")
            return wrapping[0]
        kek = self.to_unwrap(key_id)
        if not kek.wrap:
            raise NotAllowed(f"the key {key_id!r} is for unwrapping: its wrap is not true")
        return kek
