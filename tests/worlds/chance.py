"""What chance does in a world: `Random`, in less time where it is asked most."""

from random import Random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem

T = TypeVar("T")


class Chance(Random):
    """The same choices as those of `Random`, of anything but nothing, in half the time."""

    def choice(self, seq: "SupportsLenAndGetItem[T]") -> T:
        """Return one of some, each as likely."""
        number = len(seq)
        bits = number.bit_length()
        chosen = self.getrandbits(bits)
        while chosen >= number:
            chosen = self.getrandbits(bits)
        return seq[chosen]
