"""HTTP connections that a client cannot keep, fill or flood, and on which nothing but a request is executed.

`http_framing` says where requests begin and end, and the parser has to agree: wherever it stops for a reason of its own,
what follows is no request, and the connection ends.

uvicorn with httptools bounds none of these, and each filled the memory:
- a request must be complete within a time limit, counted from its first byte; the first one, from its connection;
- a head beyond its limit is answered 431; a request beyond its own, or one too many that waits, ends the connection;
- answers must be read within a time limit, those in parts as a whole;
- a request whose client leaves ends where it only waits, and is counted where it goes on.

Longer than most: one class, see there.
"""

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from host_backend import log
from host_backend.api.access_log import client_address
from host_backend.api.forwarded import TrustedProxies, Unclear
from host_backend.api.http_framing import HeadTooLarge, NotHttp, RequestFraming
from host_backend.api.left_requests import LeftRequests, refuse
from host_backend.api.peer import Peer, source_of, subject_of
from host_backend.api.places import Place
from host_backend.api.whole_answers import takes_whole

if TYPE_CHECKING:
    from starlette.types import Scope
    from uvicorn._types import ASGI3Application

logger = logging.getLogger(__name__)

#: Bytes of a whole request. The routes refuse bodies far earlier, and answer; this bounds what comes after that answer.
MAX_REQUEST_BYTES = 1024 * 1024
#: Requests of one connection that wait for the answer to another: no client that we know of sends ahead at all.
MAX_WAITING = 16
#: Seconds for a request to come in whole: 64 KiB is nothing, even over a slow line.
REQUEST_S = 10.0
#: Seconds for a client to take its answer.
WRITE_S = 10.0

_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol within limits; give it to `uvicorn.Config` as `http`.

    Longer than most: a subclass, called at every turn of a connection, whose states belong to one another.
    """

    #: Seconds for a request to come in whole.
    request_s: ClassVar[float] = REQUEST_S
    #: Seconds for a client to take its answer.
    write_s: ClassVar[float] = WRITE_S

    #: Where the client comes from.
    peer = Peer("unknown")
    #: Its place among the clients; None if they are not counted.
    place: "Place[Any] | None" = None
    #: Whose word is taken, if the peer is a proxy.
    proxies = TrustedProxies()
    #: Of all clients of the server.
    left_requests = LeftRequests()
    #: Ends a TLS handshake.
    abandon: Callable[[], object] = staticmethod(lambda: None)

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    #: The request that is being answered; `cycle` is the one that came last.
    _running: RequestResponseCycle | None = None
    _task: "asyncio.Task[None]"
    _lost = False
    #: By the loop's clock; None while a request comes in or is answered.
    _idle_since: float | None = None
    _incomplete = True
    #: Nothing more is read: this request is the last one, by the client's word or ours.
    _over = False
    #: What the parser is expected to find next.
    _may_begin = False
    _may_end = False
    _in_body = False
    #: Of the request that is incomplete; what came with the end of the one before is not counted.
    _received_bytes = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._framing = RequestFraming()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(cast("asyncio.Transport", transport))
        if self.peer.address:
            self.client = (self.peer.address, self.peer.port)
        if certificate := transport.get_extra_info("peercert"):
            log.adds(certificate=subject_of(certificate))
        self._context = copy_context()  # what a request adds to its lines in the log stands in no other's
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self.place is not None:
            self.place.leave()
        self._lost, self._incomplete = True, False
        self._watch()
        self._stop_write_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        # uvicorn does this only for the last one: the answers of the others would go nowhere.
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
            self.left_requests.leave(client_address(cast("Scope", self._running.scope)), self._task)

    @property
    def has_begun(self) -> bool:
        """Whether there is a connection, with TLS if that is wanted."""
        return self.transport is not None

    @property
    def answer_due(self) -> bool:
        """Whether a whole request is being answered, without waiting for the client."""
        running = self._running
        return running is not None and self._is_due(running) and not self.flow.write_paused

    def _is_due(self, running: RequestResponseCycle) -> bool:
        """Whether a request that is being answered came in whole, and has not had its answer."""
        return not running.response_complete and not (self._in_body and running is self.cycle)

    @property
    def _in_parts(self) -> bool:
        """Whether a part of an answer was sent, and more are to come."""
        running = self._running
        return running is not None and running.response_started and not running.response_complete

    def displace(self) -> None:
        """End the connection at once, also one that is beginning."""
        if self.has_begun:
            self.transport.abort()
        else:
            self.abandon()

    def shutdown(self) -> None:
        """At a stop, answer what has come in whole, and wait for nothing else."""
        self._over, self._incomplete = True, False
        self._watch()
        running = self._running
        if running is None or running.response_complete:
            self.transport.close()
        elif not self._is_due(running):
            self.transport.abort()
        else:
            if self._in_body:
                self.pipeline.popleft()  # it came behind another one, and has not begun
            (self.pipeline[0][0] if self.pipeline else running).keep_alive = False

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it goes beyond a limit or is no request."""
        if self._over or self.transport.is_closing():
            return
        self._idle_since = None
        self._received_bytes += len(data)
        try:
            self._parse(data)
        except HeadTooLarge as error:
            self._refuse_head(str(error))
        except NotHttp as error:
            self.send_400_response(str(error))
        except (HttpParserError, HttpParserUpgrade):
            self.send_400_response("this is not a request in HTTP/1.1")
        self._incomplete = not (self._over or self._framing.between_requests)
        if self._received_bytes > MAX_REQUEST_BYTES and not self.transport.is_closing():
            self._end(f"a request is over {MAX_REQUEST_BYTES} bytes")
        if self._incomplete or self._timer is not None:
            self._watch()

    def _parse(self, data: bytes) -> None:
        """Give the parser what it must find in each piece: it stops at anything else."""
        for piece, begins, ends in self._framing.cut(data):
            self._may_begin, self._may_end = begins, ends
            self.parser.feed_data(piece)
            if self._may_begin or self._may_end:
                raise HttpParserError("the parser sees another request than the one that came")
            if self._over:
                return

    def on_message_begin(self) -> None:
        """Let a request begin where one does."""
        if not self._may_begin:
            self._parse_no_more()
        self._may_begin = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Let a request be answered, unless too many wait already, or the parser is about to leave its body unread."""
        if self.parser.should_upgrade():
            self._parse_no_more()
        if len(self.pipeline) >= MAX_WAITING:
            self._end(f"{MAX_WAITING} requests wait already for their answers")
            self._parse_no_more()
        if self.peer.is_proxy:
            self._ask_for_whom()
        super().on_headers_complete()
        self._in_body = True

    def _ask_for_whom(self) -> None:
        """Have the request come from the client that the proxy names."""
        try:
            if (client := self.proxies.client_of(self.headers)) is not None:
                self.scope["client"] = (client, 0)
        except Unclear as error:
            logger.debug("a proxy does not name its client: %s", error)

    def on_message_complete(self) -> None:
        """Let a request end where it does."""
        if not self._may_end:
            self._parse_no_more()
        self._may_end = self._in_body = False
        self._received_bytes = 0
        # What follows the last request of a connection is none.
        self._over = not self.cycle.keep_alive
        if self.cycle.response_complete:
            self._idle_since = self.loop.time()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: "ASGI3Application") -> None:
        self._running = cycle
        takes_whole(cycle)
        context = self._context.copy()
        if self.peer.is_proxy:
            context.run(log.adds, source=source_of(cycle.scope["client"]), proxy=self.peer.source)
        if self.left_requests and self.left_requests.too_many(client_address(cast("Scope", cycle.scope))):
            app = cast("ASGI3Application", refuse)
        # As uvicorn does, but for the task, which has to hear when the client leaves.
        self._task = task = self.loop.create_task(cycle.run_asgi(app), context=context)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """Go on with the next request; a client that is left takes its last answer in time."""
        # As uvicorn does, but for the timer: a new one for each request costs more than a look at the clock.
        self.server_state.total_requests += 1
        now = self.loop.time()
        if self.place is not None:
            self.place.answered(now)
        self._stop_write_timer()
        if self.flow.write_paused or (self.transport.is_closing() and not self._lost):
            self._start_write_timer()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = now
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP, and leave."""
        self._over = True
        if self.transport.is_closing():
            return
        logger.info("connection closed: %s", msg)
        if self._may_answer():
            super().send_400_response(msg)
            self._start_write_timer()
        else:
            self.transport.abort()

    def pause_writing(self) -> None:
        """Give the client a time to read what waits for it."""
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        """The client reads; the parts of an answer have one time for all of them."""
        super().resume_writing()
        if not self.transport.is_closing() and not self._in_parts:
            self._stop_write_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Leave an idle client, also one that has not read its last answer."""
        left_s = float(self.timeout_keep_alive)
        if self._idle_since is not None:
            left_s += self._idle_since - self.loop.time()
        if left_s > 0:
            self._look_again_in(left_s)
        else:
            self.transport.abort()

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _may_answer(self) -> bool:
        """Tell whether a refusal would be the one answer to what it refuses, and in turn."""
        if self._in_body:
            return self._give_up_running()
        return self.cycle is None or self.cycle.response_complete

    def _give_up_running(self) -> bool:
        """Take over the answer to a request with a malformed body, if the reader of its body has not begun one."""
        if self._running is not self.cycle or self.cycle.response_started:
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True

    def _refuse_head(self, reason: str) -> None:
        self._over = True
        if self._may_answer():
            logger.warning("connection closed: %s", reason)
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
            self._start_write_timer()
        else:
            self._end(reason)

    def _end(self, reason: str) -> None:
        logger.warning("connection closed: %s", reason)
        self.transport.abort()

    def _parse_no_more(self) -> NoReturn:
        # What a parser's callback raises ends the parsing; it is known then what follows.
        raise ConnectionAbortedError

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

    def _start_write_timer(self) -> None:
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_s, self._on_write_time_over)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _on_write_time_over(self) -> None:
        self._write_timer = None
        logger.info("connection closed: its answers were not read within %g s", self.write_s)
        self.transport.abort()
