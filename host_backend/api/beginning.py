"""Which requests begin, and when: few in each pass of the event loop, addresses in turn.

A signature takes some ten passes: its message is read, its mark is handed over and comes back, so does the signature. In
each pass it waits for all that is ready, so that must be little, however many ask.

- In each pass a few requests for signatures begin, and fewer of all others.
- While a signature is under way, others begin every millisecond at most: its mark is written by a thread, which needs
  the interpreter's lock, and an event loop that is never idle has that.
- Where no more come than may begin, none waits. Of those that wait, each address has a turn before any has a second.
- A turn is for the beginning alone: what has begun takes as long as it takes, beside all others.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from host_backend.api.access_log import CAME, client_address, log_access
from host_backend.errors import ClientLeft
from host_backend.ip_addresses import network_of
from host_backend.leaving import waiting

#: Requests for signatures that begin in one pass. It takes 2 ms then: a refusal takes 0.1 ms, and so does the longest
#: step of a signature. Not fewer: marks that are asked for together are written together.
SIGNATURES_PER_PASS = 16
#: Other requests that begin in one pass, 0.1 ms each: the pass itself costs little beside so many.
OTHERS_PER_PASS = 4
#: Seconds from a pass in which others began to the next one while a signature is under way: as long as a mark takes.
PAUSE_S = 0.001


class Line:
    """Requests of one kind that wait to begin. There are no more of them than clients, which have places.

    Args:
        per_pass: How many begin in one pass.
        at_next_pass: Calls what begins the next pass.
    """

    def __init__(self, per_pass: int, at_next_pass: Callable[[Callable[[], None]], object]) -> None:
        self._per_pass = per_pass
        self._at_next_pass = at_next_pass
        #: How many may begin in this pass still; some while none waits.
        self._left = per_pass
        #: By address; the one that waits longest for a turn comes first.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def begins(self) -> bool:
        """Return whether a request begins at once; else it has to wait for its turn."""
        if not self._left:
            return False
        if self._left == self._per_pass:
            self._at_next_pass(self._next_pass)
        self._left -= 1
        return True

    async def turn(self, address: str) -> None:
        """Return when a request that has to wait begins.

        Args:
            address: The network address of who asks; empty for a client of a Unix socket.

        Raises:
            ClientLeft: The client has left.
        """
        with waiting():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(network_of(address), deque()).append(turn)
            await turn

    def _next_pass(self) -> None:
        self._left = self._per_pass
        while self._left and self._waiting:
            network = next(iter(self._waiting))
            line = self._waiting.pop(network)
            turn = line.popleft()
            if line:
                self._waiting[network] = line
            if not turn.done():  # its client is there still
                turn.set_result(None)
                self._left -= 1
        if self._left < self._per_pass:
            self._at_next_pass(self._next_pass)


class Beginning:
    """Has the requests of one event loop begin, of all ports and sockets."""

    def __init__(self) -> None:
        self._signatures = Line(SIGNATURES_PER_PASS, _call_soon)
        self._others = Line(OTHERS_PER_PASS, self._call_after_pause)
        #: Requests for signatures that have begun.
        self._under_way = 0

    def _call_after_pause(self, call: Callable[[], None]) -> None:
        if self._under_way:
            asyncio.get_running_loop().call_later(PAUSE_S, call)
        else:
            _call_soon(call)

    async def signature(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have a request for a signature answered, in its turn."""
        if self._signatures.begins() or await _has_turn(self._signatures, scope):
            self._under_way += 1
            try:
                await app(scope, receive, send)
            finally:
                self._under_way -= 1

    async def other(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Have any other request answered, in its turn."""
        if self._others.begins() or await _has_turn(self._others, scope):
            await app(scope, receive, send)

    @asynccontextmanager
    async def turn(self, address: str, *, signs: bool) -> AsyncIterator[None]:
        """Wait until a request begins that did not come over HTTP; it goes on inside.

        Args:
            address: The network address of who asks; empty for a client of a Unix socket.
            signs: Whether it asks for a signature.

        Raises:
            ClientLeft: The client has left.
        """
        line = self._signatures if signs else self._others
        if not line.begins():
            await line.turn(address)
        self._under_way += signs
        try:
            yield
        finally:
            self._under_way -= signs


def _call_soon(call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(call)


async def _has_turn(line: Line, scope: Scope) -> bool:
    """Return whether a request that had to wait begins; its client may leave before."""
    scope[CAME] = came = time.perf_counter()
    try:
        await line.turn(client_address(scope))
    except ClientLeft as error:
        log_access(scope, error.http_status, time.perf_counter() - came, error)
        return False
    return True
