"""What takes long and is not urgent, done in steps: pages for watchers, lists, taking over a configuration.

- Work is a generator: it may be interrupted wherever it yields, and everything else goes on there once a step has had
  its time. So between two of its yields lies far less than a step.
- One piece of work at a time: two would only hold everything else up twice as much.
- What was made for one is given to all who ask meanwhile, and for a moment after.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Generic, TypeVar

T = TypeVar("T")

#: Work: yields where it may be interrupted, returns its result.
Work = Generator[object, None, T]

#: Seconds of a step: a signature waits for some five of them.
STEP_S = 0.001
#: Seconds in which nothing is done after a step. Marks are written by a thread, which needs the interpreter's lock: it would
#: not get it for as long as the work takes from an event loop that is never idle. Source: CPython's `take_gil`, which begins
#: to start counting again whenever the lock was free for a moment.
PAUSE_S = 0.001
#: Seconds for which an answer is kept. Prometheus asks every few seconds, health checks about once a second.
KEPT_S = 1.0


class Steps:
    """Does one piece of work at a time, in steps.

    Args:
        clock: Seconds, never going back.
        pause: Waits between two steps.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(PAUSE_S),
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._one_at_a_time = asyncio.Lock()

    async def do(self, work: Work[T]) -> T:
        """Return what the work returns; whatever it raises is raised here."""
        return (await self.count(work))[0]

    async def count(self, work: Work[T]) -> tuple[T, int]:
        """Return what the work returns, and how many steps that took."""
        async with self._one_at_a_time:
            steps = 1
            ends = self._clock() + STEP_S
            while True:
                try:
                    next(work)
                except StopIteration as end:
                    return end.value, steps
                if self._clock() >= ends:
                    await self._pause()
                    steps += 1
                    ends = self._clock() + STEP_S


class Kept(Generic[T]):
    """An answer that is made once for all who ask while it is made, and for a second after.

    Args:
        steps: Does the work.
        make: Begins it.
        always: Whether it is kept in any case; else only when it took more than one step: it is the truth of this
            moment where there are few keys, and costs no more than being sent.
        clock: Seconds, never going back.
    """

    def __init__(
        self, steps: Steps, make: Callable[[], Work[T]], *, always: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._steps = steps
        self._make = make
        self._always = always
        self._clock = clock
        self._making: asyncio.Task[T] | None = None
        self._kept: tuple[T, float] | None = None

    async def get(self) -> T:
        """Return the answer, at most as old as it took to make it and `KEPT_S`."""
        if self._making is None:
            if self._kept is not None and self._clock() < self._kept[1]:
                return self._kept[0]
            self._making = asyncio.create_task(self._made())
        # A caller that leaves does not take it from the others.
        return await asyncio.shield(self._making)

    async def _made(self) -> T:
        try:
            answer, steps = await self._steps.count(self._make())
            self._kept = (answer, self._clock() + KEPT_S) if self._always or steps > 1 else None
            return answer
        finally:
            self._making = None
