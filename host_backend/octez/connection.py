"""One client of Octez' sockets: its requests are answered one after another, within the limits that HTTP has.

- A request must be complete within a time limit, counted from its first byte; the first one, from the connection.
- Between two requests a client may be silent for a time that is configured.
- While a request is answered, little more than the next one is read; while answers are not taken, nothing is.
- A request whose client leaves ends where it only waits, and is counted where it goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast

from host_backend.api.left_requests import TOO_MANY, LeftRequests
from host_backend.api.peer import Peer
from host_backend.api.places import Place
from host_backend.octez.answers import Answers
from host_backend.octez.wire import MAX_FRAME_BYTES, Frames, NotOctez, error_answer, framed, parse_request

logger = logging.getLogger(__name__)

#: Seconds for a request to come in whole: 64 KiB is nothing, even over a slow line.
REQUEST_S = 10.0
#: Seconds for a client to take its answer.
WRITE_S = 10.0

_NOT_READ = "its answers were not read"


class Clients:
    """The connections of a server that have begun."""

    def __init__(self) -> None:
        self._connections: set[OctezConnection] = set()
        self._gone = asyncio.Event()

    def __iter__(self) -> Iterator["OctezConnection"]:
        """Yield those that there are now."""
        return iter(tuple(self._connections))

    def begins(self, connection: "OctezConnection") -> None:
        """Take note of one."""
        self._connections.add(connection)

    def ends(self, connection: "OctezConnection") -> None:
        """Forget one."""
        self._connections.discard(connection)
        if not self._connections:
            self._gone.set()

    async def wait_until_gone(self) -> None:
        """Return when there are none."""
        while self._connections:
            self._gone.clear()
            await self._gone.wait()


class OctezConnection(asyncio.Protocol):
    """Serves one client. Longer than most: the states of a connection belong to one another.

    Args:
        answers: Answers requests.
        idle_s: Seconds of silence after an answer.
        left_requests: Of all clients of the server.
        clients: Likewise.
    """

    #: Seconds for a request to come in whole.
    request_s: ClassVar[float] = REQUEST_S
    #: Seconds for a client to take its answer.
    write_s: ClassVar[float] = WRITE_S

    #: Where the client comes from.
    peer = Peer("unknown")
    #: Its place among the clients; None if they are not counted.
    place: "Place[Any] | None" = None
    #: Ends what comes before the beginning.
    abandon: Callable[[], object] = staticmethod(lambda: None)

    _transport: asyncio.Transport | None = None

    def __init__(
        self,
        answers: Answers,
        idle_s: float,
        left_requests: LeftRequests,
        clients: Clients,
    ) -> None:
        self._answers = answers
        self._idle_s = idle_s
        self._left_requests = left_requests
        self._clients = clients
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        #: The request that is being answered.
        self._request: asyncio.Task[bytes] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Whether time runs for the rest of a request.
        self._incomplete = True
        self._write_paused = False
        self._read_paused = False
        #: Nothing more is read.
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._clients.begins(self)
        self._end_in(self.request_s, "no whole request came")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        del exc
        self._over = True
        self._stop_timer()
        if self.place is not None:
            self.place.leave()
        if self._request is not None:
            self._left_requests.leave(self.peer.address, self._request)
        self._clients.ends(self)

    @property
    def has_begun(self) -> bool:
        """Whether there is a connection."""
        return self._transport is not None

    @property
    def answer_due(self) -> bool:
        """Whether a request is being answered, without waiting for the client."""
        return self._request is not None and not self._write_paused

    def displace(self) -> None:
        """End the connection at once, also one that is beginning."""
        if self._transport is None:
            self.abandon()
        else:
            self._transport.abort()

    def shutdown(self) -> None:
        """At a stop, answer what has come in whole, and wait for nothing else."""
        self._over = True
        if self._request is None:
            self._close()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._over:
            return
        self._frames.feed(data)
        if self._request is None and not self._write_paused:
            self._next()
        elif len(self._frames) > MAX_FRAME_BYTES and not self._read_paused:
            self._read_paused = True
            self._open_transport.pause_reading()

    @property
    def _open_transport(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101 -- whatever is called was begun
        return self._transport

    def _next(self) -> None:
        """Begin with the next request if it has come whole."""
        try:
            frame = self._frames.next()
            request = None if frame is None else parse_request(frame)
        except NotOctez as error:
            self._end(str(error))
            return
        if request is None:
            self._wait_for_more()
            return
        self._incomplete = False
        self._stop_timer()
        if self._left_requests and self._left_requests.too_many(self.peer.address):
            self._write(error_answer(TOO_MANY))
            self._close()
            return
        self._request = self._loop.create_task(self._answers.answer(request, self.peer.address))
        self._request.add_done_callback(self._answered)

    def _wait_for_more(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self._open_transport.resume_reading()
        if not self._frames:
            self._end_in(self._idle_s, None)
        elif not self._incomplete:
            self._incomplete = True
            self._end_in(self.request_s, "the rest of a request did not come")

    def _answered(self, request: asyncio.Task[bytes]) -> None:
        self._request = None
        transport = self._open_transport
        if request.cancelled() or transport.is_closing():
            return
        self._write(request.result())
        if self.place is not None:
            self.place.answered(self._loop.time())
        if self._over:
            self._close()
        elif not self._write_paused:
            self._next()

    def _write(self, answer: bytes) -> None:
        self._open_transport.write(framed(answer))

    def _close(self) -> None:
        """End the connection once the client has taken its answers."""
        self._over = True
        self._open_transport.close()
        self._end_in(self.write_s, _NOT_READ)

    def pause_writing(self) -> None:
        """Give the client a time to read what waits for it."""
        self._write_paused = True
        self._end_in(self.write_s, _NOT_READ)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._write_paused = False
        if self._request is None and not self._over:
            self._stop_timer()
            self._incomplete = False
            self._next()

    def _end_in(self, seconds: float, why: str | None) -> None:
        """End the connection then, unless something else comes first."""
        self._stop_timer()
        self._timer = self._loop.call_later(
            seconds, self._time_over, None if why is None else f"{why} within {seconds:g} s"
        )

    def _time_over(self, why: str | None) -> None:
        self._timer = None
        if why is None:
            self._open_transport.abort()
        else:
            self._end(why)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self, why: str) -> None:
        logger.info("connection closed: %s", why)
        self._over = True
        self._open_transport.abort()
