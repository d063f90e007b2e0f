"""Requests whose heads are known: they are taken without the parser, which would say of the same bytes what it said before.

A client sends the same head again and again, but for the key and the size of the message. What a head means is what the
parser and its callbacks made of it when it came first; nothing is read here that `http_framing` has not measured. So a
request is taken this way only where the parser would be at the beginning of one, and it has come as a whole, alone.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from host_backend.api.http_framing import END_OF_HEAD, MAX_KNOWN_BYTES, MAX_KNOWN_HEADS, framing_of
from host_backend.api.http_protocol import HttpProtocol

if TYPE_CHECKING:
    from uvicorn._types import HTTPScope

#: Headers of a head whose meaning is remembered: with their bytes some 4 KiB, and 5 MB in all. Octez sends six.
MAX_KNOWN_HEADERS = 24
#: New heads for each one that is remembered when there are too many: to remember one takes as long as to parse several.
ONE_IN = 64
#: What the head alone decides of the scope of a request, beside the headers.
_OF_HEAD: Final = ("type", "asgi", "http_version", "root_path", "method", "path", "raw_path", "query_string")


@dataclass(frozen=True, slots=True)
class KnownHead:
    """What a head means.

    Attributes:
        length: Bytes of the body.
        url: The target as it came.
        headers: As the parser gave them.
        scope: The rest of the scope that the head decides.
    """

    length: int
    url: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    scope: dict[str, Any]


class KnownHeads:
    """The heads of all clients of a server, by their bytes.

    When there are too many, few of the new ones are taken, each in the place of the oldest: clients with ever more heads
    would otherwise have all of them remembered, and find none.
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}
        self._passed_by = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._heads)

    def get(self, head: bytes) -> KnownHead | None:
        """Return what a head means; None if that is not known."""
        return self._heads.get(head)

    def takes(self) -> bool:
        """Return whether the next new head is remembered; ask once for each."""
        if len(self._heads) < MAX_KNOWN_HEADS:
            return True
        self._passed_by = (self._passed_by + 1) % ONE_IN
        return not self._passed_by

    def add(self, head: bytes, known: KnownHead) -> None:
        """Remember what a head means."""
        if len(self._heads) >= MAX_KNOWN_HEADS:
            del self._heads[next(iter(self._heads))]
        self._heads[head] = known


class KnownHeadsProtocol(HttpProtocol):
    """`HttpProtocol` that leaves out the parser where a head is known."""

    #: Of all clients of the server.
    heads = KnownHeads()
    #: Of the request that the parser is about to see, if it may be remembered.
    _head: bytes | None = None

    def data_received(self, data: bytes) -> None:
        """Take what came, without the parser if it is one request with a known head."""
        if self._framing.between_requests:
            end = data.find(END_OF_HEAD) + len(END_OF_HEAD)
            head = data[:end]
            known = self.heads.get(head)
            if known is None:
                self._head = head if len(END_OF_HEAD) <= end <= MAX_KNOWN_BYTES else None
            elif len(data) - end == known.length and self._may_take():
                self._take(known, data[end:])
                return
        super().data_received(data)
        self._head = None

    def on_headers_complete(self) -> None:
        """Remember what a head means."""
        super().on_headers_complete()
        if self._head is not None:
            if self.heads.takes():
                self._remember(self._head)
            self._head = None

    def _remember(self, head: bytes) -> None:
        chunked, length, _ = framing_of(head)
        cycle = self.cycle
        # All others do something to the connection, or wait for something.
        usual = cycle.keep_alive and not cycle.waiting_for_100_continue and not chunked
        if usual and length <= HIGH_WATER_LIMIT and len(self.headers) <= MAX_KNOWN_HEADERS:
            scope = cast("dict[str, Any]", self.scope)
            known = KnownHead(length, self.url, tuple(self.headers), {name: scope[name] for name in _OF_HEAD})
            self.heads.add(head, known)

    def _may_take(self) -> bool:
        """Whether the next request would be begun at once."""
        waits = self.cycle is not None and not self.cycle.response_complete
        return not waits and not self._over and not self.transport.is_closing()

    def _take(self, known: KnownHead, body: bytes) -> None:
        """Begin a request, as uvicorn and `HttpProtocol` do when the parser calls them."""
        self._idle_since = None
        self.url, self.headers, self.expect_100_continue = known.url, [*known.headers], False
        scope = {
            **known.scope,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        self.scope = cast("HTTPScope", scope)
        if self.peer.is_proxy:
            self._ask_for_whom()
        self.cycle = cycle = RequestResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        cycle.body += body
        cycle.more_body = False
        cycle.message_event.set()
        self._start_asgi_task(cycle, self.app)
        self._incomplete = False
        if self._timer is not None:
            self._watch()
