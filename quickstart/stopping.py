"""Work that a signal ends in order, at any moment, and programs that never outlive the one that started them."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress

#: Ctrl-C; what a supervisor sends; what a terminal that closes sends.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: `prctl(PR_SET_PDEATHSIG, …)`. Source: Linux `prctl.h`.
_PR_SET_PDEATHSIG = 1


async def until_signal(work: Coroutine[None, None, int]) -> int | None:
    """Do some work; at a signal cancel it, and wait until it has cleared up.

    Returns:
        What the work returns; None when a signal came first.
    """
    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not stop.is_set():
        return working.result()
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
    return None


def dies_with_parent() -> Callable[[], None]:
    """Return what a child calls before it runs its program: it gets SIGTERM when this process ends, however it ends."""
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
        # It may have ended before that.
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return arrange


def say(text: str = "") -> None:
    """Print a line; where the terminal has gone there is no reader, and that is no error."""
    with suppress(OSError):
        print(text, flush=True)
