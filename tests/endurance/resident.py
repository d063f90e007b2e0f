"""The memory of programs while they run, and whether it grows: a slope, and between which bounds it lies for certain.

- A life is cut into parts of equal length. What counts of a part is its lowest value: what stays between the peaks.
- What leaks does so all the time; an allocator takes more once, and then uses it again. So the slope is the mean of the
  steps from part to part, and the scatter of these steps says how sure it is.
- A program that is started again begins another life: each has a level of its own, and the steps of all count together.
- The first seconds of a life do not count: until everything has been used several times.
- Only memory of the program's own counts: pages of files come and go as the system likes.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev

#: Seconds of a life that do not count; of a part; and between two looks.
WARM_UP_S = 60.0
PART_S = 30.0
EVERY_S = 1.0
#: Growth over a whole run that is no growth: allocators take memory in pieces of up to 128 KiB.
SPARE_BYTES = 256 << 10
#: By one less than the steps there are: standard errors from the mean within which the truth is, 99 times of 100.
#: Source: Student's t distribution, the quantile 0.995.
_LIKELY = {
    3: 5.84,
    4: 4.60,
    5: 4.03,
    6: 3.71,
    7: 3.50,
    8: 3.36,
    9: 3.25,
    10: 3.17,
    12: 3.05,
    15: 2.95,
    20: 2.85,
    30: 2.75,
}
#: Steps below which nothing can be said.
_FEWEST = 1 + min(_LIKELY)

#: Seconds, and bytes that were resident then.
Life = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast something grows: bytes a second, how far off that may be, and the seconds it was seen for."""

    value: float
    margin: float
    seconds: float

    @property
    def grows(self) -> bool:
        """Whether it is above zero for certain, and by more than allocators round up to."""
        return self.value > self.margin and self.value * self.seconds > SPARE_BYTES

    def __str__(self) -> str:
        value, margin = (each * 3600 / 2**20 for each in (self.value, self.margin))
        said = ": GROWS" if self.grows else ""
        return f"{value:+8.2f} MiB an hour, {value - margin:+.2f} to {value + margin:+.2f}, seen for {self.seconds:.0f} s{said}"


def slope(lives: Sequence[Life], part_s: float = PART_S) -> Slope | None:
    """Return the slope of all lives; None when they are too short to say anything.

    Args:
        lives: What was seen.
        part_s: Seconds of a part.
    """
    levels = [_levels(life, part_s) for life in lives]
    steps = [after - before for life in levels for before, after in pairwise(life)]
    if len(steps) < _FEWEST:
        return None
    likely = _LIKELY[max(free for free in _LIKELY if free < len(steps))]
    return Slope(fmean(steps) / part_s, likely * stdev(steps) / math.sqrt(len(steps)) / part_s, len(steps) * part_s)


def _levels(life: Life, part_s: float) -> list[float]:
    """Return the lowest value of each whole part; of one without a look there is none."""
    if not life:
        return []
    first, last = life[0][0], life[-1][0]
    # The last look of a part may be almost a period before its end.
    parts = int((last - first + 2 * EVERY_S) // part_s)
    lowest: dict[int, float] = {}
    for at, size in life:
        if (number := int((at - first) // part_s)) < parts:
            lowest[number] = min(lowest.get(number, math.inf), size)
    return [lowest[number] for number in sorted(lowest)]


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
