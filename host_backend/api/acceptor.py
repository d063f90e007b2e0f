"""Takes clients in, and counts them from their first packet on.

A loop's own servers tell of a TLS client when its handshake has ended. Until then it would count nowhere, and strangers
who never end theirs would take every file descriptor.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sized
from functools import partial

logger = logging.getLogger(__name__)

#: Seconds for a TLS handshake: a few packets.
HANDSHAKE_S = 10
#: Seconds until clients are taken again when there was no file descriptor for one.
RETRY_S = 1.0


class Acceptor:
    """Takes clients in on one socket; made inside the event loop, it begins at once.

    Args:
        listener: Listens; closed with this.
        protocol: Makes what serves one client; it must call what it is given as soon as the client is among `served`.
        served: The clients that are being served.
        max_connections: Of those, and those that are still beginning.
        tls: What TLS needs; None: none.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        served: Sized,
        max_connections: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._served = served
        self._max_connections = max_connections
        self._tls = tls
        self._beginning: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        listener.settimeout(0)
        self._resume()

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener, self._take)

    def _take(self) -> None:
        """Take one client: those who are served have their turn before the next one."""
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # it has left
        except OSError as error:
            logger.error("no client can be taken: %s", error.strerror)  # noqa: TRY400 -- known, and said in words
            self._loop.remove_reader(self._listener)
            self._retry = self._loop.call_later(RETRY_S, self._resume)
            return
        if len(self._served) + len(self._beginning) >= self._max_connections:
            logger.warning("connection closed: there are %d already", self._max_connections)
            client.close()
            return
        self._beginning.add(client)
        task = self._loop.create_task(self._begin(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, client: socket.socket) -> None:
        client.settimeout(0)
        handshake_s = None if self._tls is None else HANDSHAKE_S
        begun = partial(self._beginning.discard, client)
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(begun), client, ssl=self._tls, ssl_handshake_timeout=handshake_s
            )
        except OSError as error:
            # Errors of TLS and of time are among these.
            logger.info("connection closed: it did not begin: %s", error)
        finally:
            begun()

    def close(self) -> None:
        """Take no more clients, and leave those that are still beginning."""
        self._loop.remove_reader(self._listener)
        if self._retry is not None:
            self._retry.cancel()
        for task in self._tasks:
            task.cancel()
        self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until nobody is beginning any more."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
