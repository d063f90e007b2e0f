"""Whose turn it is: whoever has had few of late goes first, and few turns lie between two looks at the sockets.

- Whoever has calls to be answered, or goes on with what takes long, waits for a turn. Between two looks at the sockets
  some begin: however many clients are busy, the loop soon sees who else has come.
- Turns are numbered per client, and the lowest number goes first: so the busy ones have one each before any has a second.
  A client that asks seldom, or is new, has a number up to `AHEAD_TURNS` below those of the busy ones: a host that
  connects anew does not wait for hundreds that are busy, nor does a signature.
- Some turns go to those who have waited longest, whatever their number: newcomers without end stop nobody.
"""

import heapq
from itertools import count

import trio

#: Turns between two looks at the sockets. A turn takes its part of `ROUND_S` and one step more, where hundreds are busy
#: 1 ms: so the loop looks at least every 20 ms, and a look costs little beside so many turns.
TURNS_PER_LOOK = 16
#: Of these, the turns of those who have waited longest.
LONGEST_WAITING = 4
#: Turns that a client may have had less than the busy ones, and has ahead of them: `Initialize` and a baker's keys.
AHEAD_TURNS = 32


class Standing:
    """How many turns a client has had, as far as it counts."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


class Turns(trio.abc.Instrument):
    """The clients that wait. An instrument of trio: it is told of every look at the sockets."""

    def __init__(self) -> None:
        self._begun = 0
        #: The highest number that was the lowest of those who waited.
        self._reached = AHEAD_TURNS
        self._places = count()
        #: Those who wait, in the order in which they came.
        self._waiting: dict[int, trio.Event] = {}
        #: Their numbers and places, the lowest first; also of some who have left.
        self._numbers: list[tuple[int, int]] = []
        self._wanted = trio.Event()

    def after_io_wait(self, timeout: float) -> None:
        """Begin to count anew; called by trio."""
        del timeout
        self._begun = 0

    async def take(self, standing: Standing) -> None:
        """Return when a client may go on: at once where few are busy."""
        standing.number = number = max(standing.number + 1, self._reached - AHEAD_TURNS)
        if self._begun < TURNS_PER_LOOK and not self._waiting:
            self._begun += 1
            self._reached = max(self._reached, number)
            return
        place, turn = next(self._places), trio.Event()
        self._waiting[place] = turn
        heapq.heappush(self._numbers, (number, place))
        self._wanted.set()
        try:
            await turn.wait()
        except BaseException:
            self._waiting.pop(place, None)
            raise

    async def give(self) -> None:
        """Give those who wait their turns, for ever."""
        while True:
            if not self._waiting:
                self._numbers.clear()
                self._wanted = trio.Event()
                await self._wanted.wait()
            for _ in range(min(LONGEST_WAITING, len(self._waiting))):
                self._waiting.pop(next(iter(self._waiting))).set()
            for _ in range(min(TURNS_PER_LOOK - LONGEST_WAITING, len(self._waiting))):
                self._lowest().set()
            await trio.lowlevel.checkpoint()

    def _lowest(self) -> trio.Event:
        while True:
            number, place = heapq.heappop(self._numbers)
            if place in self._waiting:
                self._reached = max(self._reached, number)
                return self._waiting.pop(place)
