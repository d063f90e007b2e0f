"""One clock and one scheduler for all programs of a world, and an event loop for each, which can be killed and paused.

Nothing happens but what the scheduler has in its queue, in the order of time and of asking: a world that is begun with
the same seed is the same world. Asyncio's own tasks and futures run on it; threads, sockets and signals are not there.
"""

import asyncio
import math
import sys
from asyncio import events, tasks
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import Context
from functools import partial
from heapq import heappop, heappush
from itertools import count
from operator import itemgetter
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")
Connect = Callable[["Process", asyncio.BaseProtocol, str], Coroutine[Any, Any, asyncio.Transport]]
#: What a program will do: when, the how manieth, itself, each callback with its arguments, and in which context.
_Turn = list[Any]

#: How often the tasks of a dead program are ended: some begin others on their way out.
_LAST_ROUNDS = 3
_set_running: Callable[["Process | None"], None] = asyncio._set_running_loop  # type: ignore[assignment]


@contextmanager
def _own_running_loop() -> Iterator[None]:
    """Let asyncio find the running event loop in a variable of ours. Worlds run inside only.

    Up to Python 3.11 it asks the kernel each time whether its process was forked meanwhile, which takes a twentieth of a
    world; later ones do not, and some of their code written in C looks for it only there.
    """
    holder: list[Process | None] = [None]
    found = partial(itemgetter(0), holder)
    current_tasks = tasks._current_tasks  # type: ignore[attr-defined]
    with ExitStack() as stack:
        for module, name in (
            (asyncio, "get_running_loop"),
            (events, "get_running_loop"),
            (events, "_get_running_loop"),
        ):
            stack.enter_context(patch.object(module, name, found))
        stack.enter_context(patch.object(events, "_get_event_loop", lambda stacklevel=0: holder[0]))
        # The list of all tasks is not asked for, and takes as long to keep as a task to make.
        stack.enter_context(patch.object(tasks._all_tasks, "add", id))  # type: ignore[attr-defined]
        for module in (asyncio, tasks):
            stack.enter_context(patch.object(module, "current_task", lambda: current_tasks.get(holder[0])))
        stack.enter_context(patch.object(sys.modules[__name__], "_set_running", partial(holder.__setitem__, 0)))
        yield


#: To be entered before any world is run.
running_loop = _own_running_loop if sys.version_info < (3, 12) else nullcontext


class _Timer(_Turn):
    """What asyncio calls a `TimerHandle`. A list is made fastest, and compared."""

    __slots__ = ()

    def cancel(self) -> None:
        self[3] = None

    def cancelled(self) -> bool:
        return self[3] is None

    def when(self) -> float:
        return float(self[0])


class Scheduler:
    """What happens next.

    Attributes:
        now: Seconds since the world began.
        turns: How many things have happened.
        ready: What happens now.
        timers: What happens later, as a heap.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.number = count().__next__
        self.ready: deque[_Turn] = deque()
        self.timers: list[_Turn] = []

    def run(self, until: float) -> None:
        """Let everything happen up to a moment."""
        ready, timers, set_running = self.ready, self.timers, _set_running
        running, turns = None, 0
        # Behind all others of its moment.
        end: _Turn = [until, math.inf, None, None, (), None]
        heappush(timers, end)
        while True:
            if ready:
                turn = ready.popleft()
            else:
                turn = heappop(timers)
                self.now = turn[0]
            if turn[3] is None:
                if turn is end:
                    break
                continue
            _, _, process, callback, args, context = turn
            if not process.runs:
                process.held.append(turn)
                continue
            if process is not running:
                running = process
                set_running(process)
            turns += 1
            try:
                if args:
                    context.run(callback, *args)
                else:
                    context.run(callback)
            except Exception as error:  # noqa: BLE001 -- the judge hears of it
                process.bugs.append(f"{process.name}: {error!r}")
        self.turns += turns
        set_running(None)
        self.now = until

    def clear(self) -> None:
        """Let nothing happen any more."""
        self.ready.clear()
        for turn in self.timers:
            # Whoever asked for it may hold it, and it holds them.
            turn[3] = None
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
        self._timers = scheduler.timers
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
        # What it still asks for goes nowhere.
        self._timers = []

    def bury(self) -> None:
        """Unwind the tasks of a dead program, so that none is left to the garbage collector; call outside of `run`."""
        turns, self._ready = deque(self.held), deque[_Turn]()
        _set_running(self)
        for _ in range(_LAST_ROUNDS):
            self._tasks = [task for task in self._tasks if not task.done()]
            for task in self._tasks:
                task.cancel()
            while turns or self._ready:
                if not turns:
                    turns, self._ready = self._ready, turns
                _, _, _, callback, args, context = turns.popleft()
                if callback is not None:
                    context.run(callback, *args)
        _set_running(None)
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.clear()
        self._timers.clear()
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

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        """Do it now. There is no handle: what is done at once is never cancelled."""
        self._ready.append([0.0, 0, self, callback, args, self._context if context is None else context])

    def do_at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Do it later, for certain; faster than `call_later`, as there is no handle."""
        scheduler = self._scheduler
        heappush(self._timers, [when, scheduler.number(), self, callback, args, self._context])

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Timer:
        scheduler = self._scheduler
        now = scheduler.now
        if when < now:
            when = now
        timer = _Timer((when, scheduler.number(), self, callback, args, self._context if context is None else context))
        heappush(self._timers, timer)
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Timer:
        scheduler = self._scheduler
        when = scheduler.now + delay
        timer = _Timer((when, scheduler.number(), self, callback, args, self._context if context is None else context))
        heappush(self._timers, timer)
        return timer

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
