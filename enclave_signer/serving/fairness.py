"""Fair scheduling: how long one connection may keep the event loop, and whose turn is next.

- All connections together get `ROUND_S`, each the same part of it. A connection that has used its part waits until
  the others have had theirs.
- The parts are of time, not of calls: a stranger picks the calls that take longest.
- A step that has begun is finished. The long ones can only be the decoding of large frames: of these one is decoded
  between two looks at the sockets, from any client, and a small one before a large one.
- A connection with calls to answer, or long work to continue, waits for a turn. Between two looks at the sockets
  some begin: however many clients are busy, the loop soon sees who else has come.
- Turns are numbered per client, and the lowest number goes first: so the busy ones have one each before any has a second.
  A client that asks seldom, or is new, has a number up to `AHEAD_TURNS` below those of the busy ones: a host that
  reconnects does not wait for hundreds that are busy, nor does a signature.
- Some turns go to those who have waited longest, whatever their number: endless newcomers cannot stop the others.
"""

import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import trio

#: Seconds: a signature waits for two rounds at most, and a host waits 0.7 s for its signature.
ROUND_S = 0.05
#: Seconds that one connection may have while there are few: 64 calls of ECDSA, so that a host's pipeline is not cut.
LONGEST_PART_S = 0.004
#: Frames above are decoded one per round: hostile ones take 0.2 µs a byte. Calls of consensus have some 100 bytes.
LARGE_FRAME_BYTES = 2048
#: By how many bytes a frame that waits gains on each one that comes later: 255 of them cannot overtake it for ever.
WAITING_GAINS_BYTES = 512
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
    """The clients that wait. An instrument of trio, called at every look at the sockets."""

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
        """Reset the count; called by trio."""
        del timeout
        self._begun = 0

    def take(self, standing: Standing) -> bool:
        """Take the turn of a client, if it may go on at once, as it may where few are busy; else it has to `wait`."""
        standing.number = number = max(standing.number + 1, self._reached - AHEAD_TURNS)
        if self._begun >= TURNS_PER_LOOK or self._waiting:
            return False
        self._begun += 1
        self._reached = max(self._reached, number)
        return True

    async def wait(self, standing: Standing) -> None:
        """Return when it is the turn of a client that could not take it at once."""
        place, turn = next(self._places), trio.Event()
        self._waiting[place] = turn
        heapq.heappush(self._numbers, (standing.number, place))
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


class LargeFrames:
    """Lets large frames be decoded one after the other, the small ones first; in between the others have their time."""

    __slots__ = ("_busy", "_number", "_waiting")

    def __init__(self) -> None:
        self._busy = False
        self._number = 0
        #: The next one first.
        self._waiting: list[tuple[int, int, trio.Event]] = []

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait for the turn of a frame of so many bytes, and have it inside."""
        free = not self._busy
        self._busy = True
        if not free:
            await self._wait(size)
        try:
            if free:
                # Those who waited have given way already.
                await trio.lowlevel.checkpoint()
            yield
        finally:
            self._next()

    async def _wait(self, size: int) -> None:
        self._number += 1
        entry = (size + WAITING_GAINS_BYTES * self._number, self._number, trio.Event())
        heapq.heappush(self._waiting, entry)
        try:
            await entry[-1].wait()
        except BaseException:
            self._waiting.remove(entry)
            heapq.heapify(self._waiting)
            raise

    def _next(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[-1].set()
        else:
            self._busy = False


class Round:
    """What all connections share."""

    __slots__ = ("large", "part_s", "turns")

    def __init__(self) -> None:
        self.turns = Turns()
        #: Seconds that one connection has.
        self.part_s = LONGEST_PART_S
        self.large = LargeFrames()

    def share(self, connections: int) -> None:
        """Give each of so many connections its part."""
        self.part_s = min(LONGEST_PART_S, ROUND_S / max(1, connections))

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Let the connections take their turns inside."""
        trio.lowlevel.add_instrument(self.turns)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.turns.give)
                yield
                nursery.cancel_scope.cancel()
        finally:
            trio.lowlevel.remove_instrument(self.turns)


class Pace:
    """The part of one connection. Its tasks share it."""

    __slots__ = ("_now", "_resting", "_standing", "_until", "began", "round")

    def __init__(self, round_: Round) -> None:
        self.round = round_
        # It is asked for every call: `trio.current_time` looks up the clock each time.
        self._now = trio.lowlevel.current_clock().current_time
        self._resting = trio.Lock()
        self._standing = Standing()
        self.begin()

    def begin(self) -> None:
        """Start again; call it when the others have just had their time."""
        #: When that was last.
        self.began = self._now()
        self._until = self.began + self.round.part_s

    @property
    def over(self) -> bool:
        """Whether the part is used up."""
        return self._now() >= self._until

    async def turn(self) -> None:
        """Wait for a turn, and begin it."""
        if not self.round.turns.take(self._standing):
            await self.round.turns.wait(self._standing)
        self.begin()

    async def give_way(self) -> None:
        """Return at once while the connection has time, else when the others have had theirs.

        Of several tasks that wait, one goes on per round.
        """
        if self.over:
            # To get the lock takes a look at the sockets, also when it is free.
            async with self._resting:
                if self.over:
                    await self.turn()
