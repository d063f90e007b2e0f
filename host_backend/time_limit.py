"""Time limits for the waits of every signature, in a small part of the time of `asyncio.timeout`.

All waits of one limit last equally long, so they end in the order in which they began: one timer is enough for them all,
and it is not moved at each. What is missing here is a limit that can be moved.
"""

import asyncio
from types import TracebackType


class TimeLimit:
    """How long waits of one kind may take. All of them belong to one event loop at a time.

    Args:
        seconds: Above zero.
    """

    __slots__ = ("_loop", "_timer", "_waits", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        #: When each wait is to end, by the loop's clock; the first one ends first.
        self._waits: dict[_Wait, float] = {}
        #: Never later than the end of the first wait; left armed when that ends in time.
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def wait(self) -> "_Wait":
        """Return a context manager that ends the wait inside by `TimeoutError` when it takes longer; use it once."""
        return _Wait(self)

    def begin(self, wait: "_Wait", loop: asyncio.AbstractEventLoop) -> None:
        """Let the time of a wait run."""
        if loop is not self._loop:
            self._loop, self._timer = loop, None
            self._waits.clear()
        self._waits[wait] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._look)

    def end(self, wait: "_Wait") -> None:
        """Let it run no longer."""
        self._waits.pop(wait, None)

    def _look(self) -> None:
        """End the waits that have taken too long; look again when the next one will have."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for wait, ends_at in list(self._waits.items()):
            if ends_at > (now := loop.time()):
                self._timer = loop.call_later(ends_at - now, self._look)
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
