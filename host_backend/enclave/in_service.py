"""The connection on which signatures are made, and the callers that wait for it. All methods belong to one event loop."""

import asyncio

from host_backend.enclave.client import SigningClient
from host_backend.errors import EnclaveUnavailable


class InService:
    """At most one connection at a time; another one may take its place.

    Attributes:
        waiting: How many wait for a connection.
        wanted: Set whenever somebody begins to wait.
    """

    def __init__(self) -> None:
        self._client: SigningClient | None = None
        self._news = asyncio.Event()
        self._closed = False
        self.waiting = 0
        self.wanted = asyncio.Event()

    @property
    def client(self) -> SigningClient | None:
        """The present connection; None while there is none."""
        return self._client

    def put(self, client: SigningClient) -> None:
        """Let signatures be made on this connection from now on."""
        self._client = client
        self._tell()

    def take_out(self, client: SigningClient) -> bool:
        """Let no signature be made on a connection any more; return whether any could."""
        if self._client is not client:
            return False
        self._client = None
        return True

    def close(self) -> None:
        """End the connection, and let no caller wait for another one."""
        self._closed = True
        if self._client is not None:
            self._client.close()
        self._tell()

    def _tell(self) -> None:
        """Wake the callers that wait for a change of the connection."""
        self._news.set()
        self._news = asyncio.Event()

    async def change(self) -> None:
        """Wait until there is another connection."""
        await self._news.wait()

    def with_key(self, pkh: str | None) -> SigningClient | None:
        """Return the present connection if there is one, and if the key that is named, if any, is open on it."""
        client = self._client
        return client if client is not None and (pkh is None or client.holds(pkh)) else None

    async def wait_for(self, pkh: str | None, limit_s: float) -> SigningClient:
        """Return a connection as `with_key` does, as soon as there is one.

        Raises:
            TimeoutError: There was none in time.
            EnclaveUnavailable: There will be none.
        """
        self.waiting += 1
        self.wanted.set()
        try:
            async with asyncio.timeout(limit_s):
                while (client := self.with_key(pkh)) is None:
                    if self._closed:
                        raise EnclaveUnavailable("the connection to the enclave was closed")
                    await self._news.wait()
                return client
        finally:
            self.waiting -= 1
