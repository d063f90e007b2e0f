"""A time limit for the waits of every signature: `asyncio.timeout` in a third of its time.

That one is a class of three states whose limit can be moved, and whose entry and exit are coroutines. What is missing
here is only that.
"""

import asyncio
from types import TracebackType


class TimeLimit:
    """Ends the wait inside by `TimeoutError` when it takes longer; use it as a context manager, once.

    Args:
        seconds: Above zero.
    """

    __slots__ = ("_cancels_before", "_over", "_seconds", "_task", "_timer")

    _task: "asyncio.Task[object]"
    _timer: asyncio.TimerHandle

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is for a task")
        self._task = task
        self._cancels_before = task.cancelling()
        self._timer = task.get_loop().call_later(self._seconds, self._end)

    def _end(self) -> None:
        self._over = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Somebody else may have cancelled the task as well: then it is to end.
        if self._over and self._task.uncancel() <= self._cancels_before and kind is asyncio.CancelledError:
            raise TimeoutError from error
