"""The memory of programs while they run, and whether it grows: a line through what was seen, and how sure its slope is.

- A program that is started again begins another life: each has a level of its own, and all have one slope.
- The first seconds of a life do not count: everything is used for the first time then.
- What is resident at one moment is close to what was a moment ago. The standard error is that of as many values as
  would tell as much if each were independent (by the correlation of neighbours).
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

#: Seconds of a life that do not count; and between two looks.
WARM_UP_S = 60.0
EVERY_S = 1.0
#: Standard errors from zero up to which a slope may be chance: of 200 that are zero, one is farther above it.
LIKELY = 2.6
#: Growth over a whole run that is no growth: allocators take memory by the MiB.
SPARE_BYTES = 2 << 20
#: Values of a life below which it says nothing.
_FEWEST = 5

#: Seconds, and bytes that were resident then.
Life = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast something grows: in bytes a second, its standard error, and the seconds it was seen for."""

    value: float
    error: float
    seconds: float

    @property
    def grows(self) -> bool:
        """Whether it is above zero for certain, and by more than allocators round."""
        return self.value > LIKELY * self.error and self.value * self.seconds > SPARE_BYTES

    def __str__(self) -> str:
        value, error = (each * 3600 / 2**20 for each in (self.value, self.error))
        return (
            f"{value:+8.2f} ± {error:.2f} MiB an hour, seen for {self.seconds:.0f} s{': GROWS' if self.grows else ''}"
        )


def slope(lives: Sequence[Life]) -> Slope | None:
    """Fit one slope, by least squares, to all lives; None when they are too short to say anything."""
    kept = [life for life in lives if len(life) >= _FEWEST]
    centred = [list(_centred(life)) for life in kept]
    values = [pair for life in centred for pair in life]
    width = sum(x * x for x, _ in values)
    free = len(values) - len(kept) - 1
    if not width or free < 1:
        return None
    found = sum(x * y for x, y in values) / width
    left = [[y - found * x for x, y in life] for life in centred]
    squares = sum(each * each for life in left for each in life)
    together = sum(one * next_ for life in left for one, next_ in pairwise(life))
    alike = min(max(together / squares, 0.0), 0.99) if squares else 0.0
    error = math.sqrt(squares / free / width * (1 + alike) / (1 - alike))
    return Slope(found, error, sum(life[-1][0] - life[0][0] for life in kept))


def _centred(life: Life) -> Iterator[tuple[float, float]]:
    x, y = (sum(values) / len(life) for values in zip(*life, strict=True))
    return ((one - x, other - y) for one, other in life)


class Watch:
    """Looks at programs again and again, from a thread of its own.

    Args:
        programs: For each name: the number of its life, and its resident bytes; None while it is not there.
        warm_up_s: Seconds of a life that do not count.
    """

    def __init__(
        self, programs: Mapping[str, Callable[[], tuple[int, int] | None]], warm_up_s: float = WARM_UP_S
    ) -> None:
        self._programs = programs
        self._warm_up_s = warm_up_s
        self._end = threading.Event()
        #: By name, the lives so far: their numbers, and what was seen in each.
        self.seen: dict[str, dict[int, list[tuple[float, float]]]] = {name: {} for name in programs}

    def look(self) -> None:
        """Look once."""
        for name, resident in self._programs.items():
            found = resident()
            if found is not None:
                life, size = found
                self.seen[name].setdefault(life, []).append((time.monotonic(), float(size)))

    def slope(self, name: str) -> Slope | None:
        """Return how fast a program grows, by its name."""
        lives = self.seen[name].values()
        return slope([[(at, size) for at, size in life if at >= life[0][0] + self._warm_up_s] for life in lives])

    def last_bytes(self, name: str) -> float:
        """Return what was seen last."""
        *_, life = self.seen[name].values()
        return life[-1][1]

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look every second meanwhile."""

        def look() -> None:
            while not self._end.wait(EVERY_S):
                self.look()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def report(self) -> list[str]:
        """Return a line for each program."""
        lines = []
        for name, lives in self.seen.items():
            if lives:
                said = self.slope(name) or "too short to say"
                lines.append(f"  {name:<18}{self.last_bytes(name) / 2**20:>7.1f} MiB {said}")
        return lines

    @property
    def grows(self) -> list[str]:
        """The names of programs that grow."""
        return [name for name in self.seen if (found := self.slope(name)) is not None and found.grows]
