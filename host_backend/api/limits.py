"""HTTP connections that a client cannot keep, fill or flood.

uvicorn with httptools bounds neither the size of a request's head nor the time a request takes: 100 MB of headers were
accepted, and a client that sends nothing stays for ever. Here

- a request must be complete within a time limit, counted from its first byte; the first one, from its connection;
- a head beyond its limit is answered 431, and a request beyond its own ends the connection;
- a connection above the number allowed is closed at once, so that file descriptors remain for what signs.
"""

import asyncio
import logging
from typing import ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

logger = logging.getLogger(__name__)

#: Bytes of a request line with its headers; Octez sends about 200.
MAX_HEAD_BYTES = 16 * 1024
#: Bytes of a whole request. The routes refuse bodies far earlier, and answer; this bounds what comes after that answer.
MAX_REQUEST_BYTES = 1024 * 1024
#: Seconds for a request to come in whole: 64 KiB is nothing, even over a slow line.
REQUEST_S = 10.0

_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol within limits; give it to `uvicorn.Config` as `http`."""

    #: Seconds for a request to come in whole.
    request_s: ClassVar[float] = REQUEST_S

    _timer: asyncio.TimerHandle | None = None
    _incomplete = True
    _in_head = True
    _received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or close at once when there are too many connections."""
        stream = cast("asyncio.Transport", transport)
        limit = self.limit_concurrency
        if limit is not None and len(self.connections) >= limit - 1:  # at the limit itself, uvicorn answers 503
            self.transport = stream
            logger.warning("connection closed: there are %d already", limit - 1)
            stream.abort()
            return
        super().connection_made(stream)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._incomplete = False
        self._watch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it goes beyond a limit."""
        if self.transport.is_closing():
            return
        # Also for bytes that begin no request, such as empty lines: uvicorn forgets its own timer at any byte.
        self._incomplete = True
        self._received_bytes += len(data)
        super().data_received(data)
        if not self._incomplete:
            self._in_head = True
            self._received_bytes = 0
        elif self._in_head and self._received_bytes > MAX_HEAD_BYTES:
            logger.warning("connection closed: the head of a request is over %d bytes", MAX_HEAD_BYTES)
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        elif self._received_bytes > MAX_REQUEST_BYTES:
            logger.warning("connection closed: a request is over %d bytes", MAX_REQUEST_BYTES)
            self.transport.abort()
        self._watch()

    def on_message_begin(self) -> None:
        """Take note that a request begins."""
        self._incomplete = True
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Take note that the head of a request is complete."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Take note that a request is complete."""
        self._incomplete = False
        super().on_message_complete()

    def _watch(self) -> None:
        """Let the time limit run while a request is incomplete; most come in one piece and need no timer."""
        if self._incomplete and self._timer is None:
            self._timer = self.loop.call_later(self.request_s, self._on_time_over)
        elif not self._incomplete and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time_over(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            logger.info("connection closed: no whole request within %g s", self.request_s)
            self.transport.abort()
