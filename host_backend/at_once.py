"""So many at once: of those that wait, addresses have one turn each before any has a second.

What each takes is bounded by whoever asks, so is how many wait: a connection has one request, and places bound those.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from host_backend.ip_addresses import network_of

#: In order; only the keys mean anything.
_Line = dict[asyncio.Future[None], None]


class AtOnce:
    """Lets so many go on at once.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        #: By address; the one that waits longest for a turn comes first. None waits while there is room.
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Wait until there is room, and have it inside.

        Args:
            address: The network address of who asks; empty for a client of a Unix socket.
        """
        if self._free:
            self._free -= 1
        else:
            await self._wait(network_of(address))
        try:
            yield
        finally:
            self._next()

    async def _wait(self, network: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(network, {})[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(network, turn)
            else:
                self._next()
            raise

    def _leave(self, network: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(network, {})
        line.pop(turn, None)
        if not line:
            self._lines.pop(network, None)

    def _next(self) -> None:
        """Give the room to the next one."""
        while self._lines:
            network = next(iter(self._lines))
            line = self._lines.pop(network)
            turn = next(iter(line))
            del line[turn]
            if line:
                self._lines[network] = line
            if not turn.done():  # else it leaves, and has not noticed yet
                turn.set_result(None)
                return
        self._free += 1
