"""One clock and one scheduler for all programs of a world, and an event loop for each, which can be killed and paused.

Nothing happens but what the scheduler has in its queue, in the order of time and of asking: a world that is begun with
the same seed is the same world. Asyncio's own tasks and futures run on it; threads, sockets and signals are not there.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")
Connect = Callable[["Process", asyncio.BaseProtocol, str], Coroutine[Any, Any, asyncio.Transport]]

#: What asyncio's own code finds its event loop by.
_set_running: Callable[["Process | None"], None] = asyncio._set_running_loop  # type: ignore[assignment]
#: How often the tasks of a dead program are ended: some begin others on their way out.
_LAST_ROUNDS = 3


class _Turn(list[Any]):
    """What a program will do: itself, each callback with its arguments, in which context, and when. A list is made fastest."""

    __slots__ = ()

    def cancel(self) -> None:
        self[1] = None

    def cancelled(self) -> bool:
        return self[1] is None

    def when(self) -> float:
        return float(self[4])


class Scheduler:
    """What happens next.

    Attributes:
        now: Seconds since the world began.
        turns: How many things have happened.
        ready: What happens now.
        timers: What happens later.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.ready: deque[_Turn] = deque()
        self.timers: list[tuple[float, int, _Turn]] = []
        self.numbers = count()

    def run(self, until: float) -> None:
        """Let everything happen up to a moment."""
        ready, timers = self.ready, self.timers
        running, turns = None, 0
        while True:
            if ready:
                turn = ready.popleft()
            elif timers and timers[0][0] <= until:
                self.now, _, turn = heappop(timers)
            else:
                break
            process, callback, args, context, _ = turn
            if callback is None:
                continue
            if not process.runs:
                process.held.append(turn)
                continue
            if process is not running:
                running = process
                _set_running(process)
            turns += 1
            try:
                context.run(callback, *args)
            except Exception as error:  # noqa: BLE001 -- the judge hears of it
                process.bugs.append(f"{process.name}: {error!r}")
        self.turns += turns
        _set_running(None)
        self.now = until

    def clear(self) -> None:
        """Let nothing happen any more."""
        self.ready.clear()
        for _, _, turn in self.timers:
            # Whoever asked for it may hold it, and it holds them.
            turn.cancel()
        self.timers.clear()


class Process:
    """One program of a world: as much of an event loop as the product asks of one.

    Attributes:
        runs: Whether it does anything: it is neither dead nor paused.
        dead: Whether it was killed: nothing of it happens any more, and nothing that it does has an effect.
        held: What it will do when it is resumed, or would have done when it was killed.
        bugs: Exceptions that no caller got.
    """

    def __init__(self, scheduler: Scheduler, name: str, connect: Connect | None = None) -> None:
        self.name = name
        self.runs = True
        self.dead = False
        self.held: list[_Turn] = []
        self.bugs: list[str] = []
        self._scheduler = scheduler
        self._ready = scheduler.ready
        self._connect = connect
        self._context = Context()
        self._tasks: list[asyncio.Task[Any]] = []

    @classmethod
    def idle(cls) -> "Process":
        """Return one that does nothing."""
        return cls(Scheduler(), "idle")

    # What a world does to it

    def pause(self) -> None:
        """Stop it as SIGSTOP does."""
        self.runs = False

    def resume(self) -> None:
        """Let it go on."""
        if not self.dead:
            self.runs = True
            self._ready.extend(self.held)
            self.held.clear()

    def kill(self) -> None:
        """End it as SIGKILL does: what its tasks do on their way out has no effect on anything."""
        self.dead, self.runs = True, False

    def bury(self) -> None:
        """Unwind the tasks of a dead program, so that none is left to the garbage collector; call outside of `run`."""
        turns, self._ready = deque(self.held), deque[_Turn]()
        _set_running(self)
        for _ in range(_LAST_ROUNDS):
            for task in self._tasks:
                task.cancel()
            while turns or self._ready:
                if not turns:
                    turns, self._ready = self._ready, turns
                _, callback, args, context, _ = turns.popleft()
                if callback is not None:
                    context.run(callback, *args)
        _set_running(None)
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.clear()
        self.held.clear()

    # What asyncio asks of an event loop

    def time(self) -> float:
        return self._scheduler.now

    #: Without a frame of Python's: every future asks.
    get_debug = bool

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> _Turn:
        turn = _Turn((self, callback, args, context or self._context, 0.0))
        self._ready.append(turn)
        return turn

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Turn:
        scheduler = self._scheduler
        turn = _Turn((self, callback, args, context or self._context, when))
        if not self.dead:
            heappush(scheduler.timers, (max(when, scheduler.now), next(scheduler.numbers), turn))
        return turn

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Turn:
        return self.call_at(self._scheduler.now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)  # type: ignore[arg-type]
        self._tasks.append(task)
        return task

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        assert self._connect is not None
        protocol = factory()
        return await self._connect(self, protocol, host), protocol

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            error = context.get("exception")
            self.bugs.append(f"{self.name}: {context.get('message')}: {error!r}")
