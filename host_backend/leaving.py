"""Requests whose client leaves before it has its answer.

- A request that only waits ends at once: for a link, a turn, the policy hook, a look at a store. It has no reader.
- Everything else is finished: a mark without its signature costs a right, and what a thread computes goes on anyway.
  So code that waits says so, with `waiting`; without that a request only lasts longer.
"""

import asyncio
from types import TracebackType
from typing import Any, cast

from host_backend.errors import ClientLeft

#: Tasks that only wait at the moment.
_waiting: set[asyncio.Task[Any]] = set()
#: Tasks whose client has left; those that have ended are taken out.
_left: set[asyncio.Task[Any]] = set()


def leave(task: asyncio.Task[Any]) -> bool:
    """Take note that the client of a request has left; return whether the request goes on, until it next waits.

    Args:
        task: The request's; it has not ended.
    """
    _left.add(task)
    task.add_done_callback(_left.discard)
    if task in _waiting:
        task.cancel()
        return False
    return True


class waiting:  # noqa: N801 -- used like a function
    """Inside, a request only waits, and ends when its client leaves; in any other task nothing is different.

    One is not used inside another.

    Raises:
        ClientLeft: It has left, before or meanwhile.
    """

    __slots__ = ("_task",)

    def __enter__(self) -> None:
        # What awaits is in a task.
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        if task in _left:
            raise _client_left()
        _waiting.add(task)
        self._task = task

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _waiting.discard(self._task)
        # The count stays above zero where another caller cancels the task, too.
        if self._task in _left and not self._task.uncancel():
            raise _client_left() from None


def _client_left() -> ClientLeft:
    return ClientLeft("the client left before its answer, while the request waited")
