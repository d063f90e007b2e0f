"""Whose turn it is where something takes long: one at a time, addresses in turn, small before large.

- Most requests take no turn. One that does never has it before the loop has looked at everything else.
- Addresses have one turn each before any has a second: a client that sends much waits behind its own.
- Of one address the small go first, and waiting gains on those who come later. A connection has one request
  in the line at most, so connections take turns as well.
- What computes in its turn does so in a thread, which soon lets the loop go on.
- The line is bounded, in all and for each address. If one more comes, the one that would be last is refused: of an
  address that is over its share, else of the one that has most in the line.
"""

import asyncio
import heapq
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from typing import ParamSpec, TypeVar

from host_backend.errors import TooManyWait
from host_backend.ip_addresses import network_of
from host_backend.leaving import waiting

#: By how many bytes a request that waits gains on each one that comes later: 128 of them cannot overtake it for ever.
WAITING_GAINS_BYTES = 512
#: Seconds after which a thread that computes lets others go on: the loop waits so long some ten times for a signature.
#: Python's own 5 ms are ten times as long. It is so short only meanwhile: else it costs a tenth of all signatures.
SWITCH_S = 0.0005

P = ParamSpec("P")
T = TypeVar("T")

#: Its place in the line, its number, and what it waits for.
_Waiting = tuple[int, int, asyncio.Future[None]]


class _Switches:
    """How soon a thread lets others go on: of all of the interpreter, so that it is set while any line computes."""

    def __init__(self) -> None:
        self._computing = 0
        self._usual_s = SWITCH_S

    @contextmanager
    def often(self) -> Iterator[None]:
        if not self._computing:
            self._usual_s = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_S)
        self._computing += 1
        try:
            yield
        finally:
            self._computing -= 1
            if not self._computing:
                sys.setswitchinterval(self._usual_s)


_SWITCHES = _Switches()


class Turns:
    """The requests that wait for something that takes long.

    Args:
        what: What the requests are, for the text of a refusal: `large requests`.
        share: How many may wait of one address.
        limit: How many may wait in all.
    """

    def __init__(self, what: str, *, share: int, limit: int) -> None:
        self._what = what
        self._share = share
        self._limit = limit
        self._busy = False
        #: Whose turn it is, or was last.
        self._last = ""
        self._numbers = count()
        #: By address, each with the first of its line in front; the address that waits longest comes first.
        self._lines: dict[str, list[_Waiting]] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(map(len, self._lines.values()))

    @asynccontextmanager
    async def turn(self, address: str, size_bytes: int = 0) -> AsyncIterator[None]:
        """Wait for a turn, and have it inside.

        Args:
            address: The network address of who asks; empty for a client of a Unix socket.
            size_bytes: Smaller ones of one address go first.

        Raises:
            TooManyWait: There is no room in the line; try again later.
            ClientLeft: The client has left.
        """
        network = network_of(address)
        if self._busy:
            with waiting():
                await self._wait(network, size_bytes)
        self._busy, self._last = True, network
        try:
            await asyncio.sleep(0)
            yield
        finally:
            self._next()

    async def compute(
        self, address: str, size_bytes: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Wait for a turn, and return what some work returns that is done in a thread; whatever it raises is raised here.

        Args:
            address: As for `turn`.
            size_bytes: As for `turn`.
            work: Safe to run in any thread.
            args: For the work.
            kwargs: For the work.

        Raises:
            TooManyWait: As for `turn`.
        """
        async with self.turn(address, size_bytes):
            with _SWITCHES.often():
                return await asyncio.to_thread(work, *args, **kwargs)

    async def _wait(self, network: str, size_bytes: int) -> None:
        number = next(self._numbers)
        turn = asyncio.get_running_loop().create_future()
        place = (size_bytes + WAITING_GAINS_BYTES * number, number, turn)
        heapq.heappush(self._lines.setdefault(network, []), place)
        self._refuse_last(network)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(network, place)
            elif turn.exception() is None:
                self._next()
            raise

    def _refuse_last(self, network: str) -> None:
        """Refuse one request if the line has become too long."""
        if len(self._lines[network]) > self._share:
            text = f"{self._share} {self._what} of this address wait already: send fewer at once, try again later"
        elif len(self) > self._limit:
            network = max(self._lines, key=lambda each: (len(self._lines[each]), max(self._lines[each])))
            text = f"{self._limit} {self._what} wait already: try again later"
        else:
            return
        last = max(self._lines[network])
        self._leave(network, last)
        last[-1].set_exception(TooManyWait(text))

    def _leave(self, network: str, place: _Waiting) -> None:
        line = self._lines.get(network, [])
        with suppress(ValueError):
            line.remove(place)
        heapq.heapify(line)
        if not line:
            self._lines.pop(network, None)

    def _next(self) -> None:
        """Give the turn to the next one."""
        while self._lines:
            network = next((each for each in self._lines if each != self._last), self._last)
            line = self._lines.pop(network)
            *_, turn = heapq.heappop(line)
            if line:
                self._lines[network] = line
            if not turn.done():
                turn.set_result(None)
                return
        self._busy = False
