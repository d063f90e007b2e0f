"""How many blobs of one client are with sealers at once: a client that sends many leaves the services to others, too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import trio

from enclave_signer.errors import SealingUnavailable

#: Blobs of one client, over all its connections: as many as a host sends at once.
PLACES = 64
#: Seconds for which a call waits for a place: as long as services have for an answer.
WAIT_S = 8.0


class ClientPlaces:
    """The places of one client.

    Args:
        name: Its address, or what counts as it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._limiter = trio.CapacityLimiter(PLACES)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Give a place for a call of a sealer.

        Raises:
            SealingUnavailable: There was none in time.
        """
        with trio.move_on_after(WAIT_S) as waiting:
            await self._limiter.acquire()
        if waiting.cancelled_caught:
            raise SealingUnavailable(f"{PLACES} calls of this client had no answer of a sealer for {WAIT_S:g} s")
        try:
            yield
        finally:
            self._limiter.release()


class Clients:
    """Those that are connected."""

    def __init__(self) -> None:
        self._clients: WeakValueDictionary[str, ClientPlaces] = WeakValueDictionary()

    def named(self, name: str) -> ClientPlaces:
        """Return the places of a client, which all its sessions share."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = ClientPlaces(name)
        return client
