"""Time limits for the waits of every signature, cheaper than `asyncio.timeout`.

All waits of one limit last equally long, so they end in the order in which they began: one timer is enough for them all,
and it is not moved at each. What is missing here is a limit that can be moved.
"""

import asyncio
import math
from types import TracebackType
from typing import Final

#: Seconds from one look at the waits to the next one at least: what uvloop's clock and timers tell apart. It takes less for 0.
TICK_S: Final = 0.001
#: Seconds: a look that comes later than that was held up by the loop itself. So long, once, what has come is read first.
LATE_S: Final = 0.05


class TimeLimit:
    """How long waits of one kind may take. All of them belong to one event loop at a time.

    Args:
        seconds: Above zero.
    """

    __slots__ = ("_due", "_loop", "_timer", "_waits", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        #: When each wait is to end, by the loop's clock; the first one ends first.
        self._waits: dict[_Wait, float] = {}
        #: Never later than the end of the first wait; left armed when that ends in time.
        self._timer: asyncio.TimerHandle | None = None
        #: When that is to fire; infinite while it has been given time.
        self._due = math.inf
        self._loop: asyncio.AbstractEventLoop | None = None

    def wait(self) -> "_Wait":
        """Return a context manager that ends the wait inside by `TimeoutError` when it takes longer; use it once."""
        return _Wait(self)

    def begin(self, wait: "_Wait", loop: asyncio.AbstractEventLoop) -> None:
        """Let the time of a wait run."""
        if loop is not self._loop:
            self._loop, self._timer = loop, None
            self._waits.clear()
        self._waits[wait] = ends_at = loop.time() + self.seconds
        if self._timer is None:
            self._look_at(ends_at, loop)

    def end(self, wait: "_Wait") -> None:
        """Let it run no longer."""
        self._waits.pop(wait, None)

    def _look_at(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        self._due = due
        self._timer = loop.call_later(max(due - loop.time(), TICK_S), self._look)

    def _look(self) -> None:
        """End the waits that have taken too long; look again when the next one will have."""
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._waits and loop.time() > self._due + LATE_S:
            self._due = math.inf
            self._timer = loop.call_later(LATE_S, self._look)
            return
        for wait, ends_at in list(self._waits.items()):
            if ends_at > loop.time():
                self._look_at(ends_at, loop)
                return
            del self._waits[wait]
            wait.give_up()


class _Wait:
    """One wait."""

    __slots__ = ("_cancels_before", "_limit", "_over", "_task")

    _task: "asyncio.Task[object]"

    def __init__(self, limit: TimeLimit) -> None:
        self._limit = limit
        self._over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is for a task")
        self._task = task
        self._cancels_before = task.cancelling()
        self._limit.begin(self, task.get_loop())

    def give_up(self) -> None:
        """End the wait inside."""
        self._over = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limit.end(self)
        # Somebody else may have cancelled the task as well: then it is to end.
        if self._over and self._task.uncancel() <= self._cancels_before and kind is asyncio.CancelledError:
            raise TimeoutError from error
