"""What is executed without the parser is what the parser would have had executed, byte for byte."""

import asyncio
import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.server import ServerState

from host_backend.api import known_heads
from host_backend.api.forwarded import TrustedProxies
from host_backend.api.http_framing import MAX_KNOWN_BYTES
from host_backend.api.http_protocol import HttpProtocol
from host_backend.api.known_heads import MAX_KNOWN_HEADERS, KnownHead, KnownHeads, KnownHeadsProtocol
from host_backend.api.peer import Peer
from tests.doubles.odd_requests import Maker
from tests.endurance import framing

#: Odd requests that are compared.
REQUESTS = 150

GET = b"GET /keys/a%20b?x=1&y HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b'POST /keys/tz1 HTTP/1.1\r\nHost: h\r\nUser-AGENT: a\xff b \r\nContent-Length: 4\r\n\r\n"00"'
ABSOLUTE = b"GET http://h/keys/c?z HTTP/1.1\r\nHost: h\r\nupgrade: websocket\r\nConnection: upgrade\r\n\r\n"
OTHERS = (
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (HIGH_WATER_LIMIT + 1) + bytes(HIGH_WATER_LIMIT + 1),
    b"GET / HTTP/1.1\r\nHost: h\r\n" + b"a: b\r\n" * MAX_KNOWN_HEADERS + b"\r\n",
    b"GET /" + b"a" * MAX_KNOWN_BYTES + b" HTTP/1.1\r\nHost: h\r\n\r\n",
)
#: What was executed, what was answered, and whether the connection has ended.
Reading = tuple[list[tuple[dict[str, Any], bytes]], bytes, bool]


class Known(KnownHeadsProtocol):
    """Counts requests that were taken without the parser."""

    count: ClassVar[int] = 0

    def _take(self, known: KnownHead, body: bytes) -> None:
        super()._take(known, body)
        Known.count += 1


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "heads", KnownHeads())
    monkeypatch.setattr(Known, "count", 0)


async def _read(kind: type[HttpProtocol], reads: Sequence[bytes], peer: Peer | None = None) -> Reading:
    executed: list[tuple[dict[str, Any], bytes]] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body, more = body + event["body"], event["more_body"]
        executed.append(({name: value for name, value in scope.items() if name != "extensions"}, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(answer, http=kind, lifespan="off", log_config=None, interface="asgi3")
    config.load()
    wire, state = framing.Wire(), ServerState()
    protocol = kind(config, state, {"of": "the server"})
    protocol.proxies = TrustedProxies([ipaddress.ip_network("127.0.0.0/8")])
    if peer is not None:
        protocol.peer = peer
    protocol.connection_made(wire)
    for data in reads:
        protocol.data_received(data)
        for _ in range(4):
            await asyncio.sleep(0)
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks)
    return executed, wire.written, wire.closed


def read(kind: type[HttpProtocol], reads: Sequence[bytes], peer: Peer | None = None) -> Reading:
    return asyncio.run(_read(kind, reads, peer))


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield every way to cut data in two, and byte by byte."""
    yield [data]
    yield from ([data[:place], data[place:]] for place in range(1, len(data)))
    yield [data[place : place + 1] for place in range(len(data))]


@pytest.mark.parametrize("request_", [GET, POST, ABSOLUTE])
def test_a_request_that_came_before_is_what_the_parser_makes_of_it(request_: bytes) -> None:
    reads = [request_, GET, request_, request_, POST]
    reading = read(Known, reads)
    assert reading == read(HttpProtocol, reads)
    assert len(reading[0]) == len(reads)
    assert Known.count == 2 + (request_ == GET) + (request_ == POST)


@pytest.mark.parametrize("request_", OTHERS)
def test_what_is_not_the_usual_request_always_goes_to_the_parser(request_: bytes) -> None:
    assert [read(Known, [request_, request_]) for _ in range(2)] == [read(HttpProtocol, [request_, request_])] * 2
    assert Known.count == len(Known.heads) == 0


@pytest.mark.parametrize("next_", [GET, POST[:-1], b"X", b"\r\n"])
def test_a_known_head_in_every_cut(next_: bytes) -> None:
    read(Known, [POST])
    for reads in cuts(POST + next_):
        assert read(Known, reads) == read(HttpProtocol, reads)
    # Only where the cut is between the two.
    assert Known.count == 1


def test_another_body_of_the_same_head_is_another_body() -> None:
    reads = [POST, POST.replace(b'"00"', b'"ff"')]
    assert [body for _, body in read(Known, reads)[0]] == [b'"00"', b'"ff"']
    assert Known.count == 1


def test_a_request_is_not_begun_before_the_one_that_is_answered() -> None:
    read(Known, [POST])
    reads = [POST + POST, POST]
    assert read(Known, reads) == read(HttpProtocol, reads)


def test_what_one_request_does_to_its_headers_is_not_seen_by_the_next() -> None:
    (first, _), (second, _) = read(Known, [POST, POST])[0]
    first["headers"].clear()
    first["state"].clear()
    assert second["headers"]
    assert second["state"] == {"of": "the server"}


def test_a_proxy_is_asked_for_whom_each_time() -> None:
    forwarded = POST.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")
    peer = Peer("127.0.0.1:1", "127.0.0.1", 1, is_proxy=True)
    reading = read(Known, [forwarded, forwarded], peer)
    assert reading == read(HttpProtocol, [forwarded, forwarded], peer)
    assert [scope["client"] for scope, _ in reading[0]] == [("192.0.2.7", 0)] * 2
    assert Known.count == 1


def test_odd_requests_are_read_alike_whether_their_heads_are_known_or_not() -> None:
    maker = Maker(framing.SEED)
    again = [[request, request, POST, request] for request in (maker.request() for _ in range(REQUESTS))]
    cut = [reads for reads, _ in framing.connections(REQUESTS)]

    async def compare() -> None:
        for reads in (*again, *cut, *cut):
            assert await _read(Known, reads) == await _read(HttpProtocol, reads)

    asyncio.run(compare())
    assert Known.count > REQUESTS


def test_so_many_heads_are_remembered_and_few_of_those_that_come_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_heads, "MAX_KNOWN_HEADS", 2)
    monkeypatch.setattr(known_heads, "ONE_IN", 3)
    requests = [POST.replace(b"tz1", b"tz%d" % number) for number in range(5)]
    # The last one is the third for which there is no room: it takes the place of the first.
    read(Known, requests)
    assert (len(Known.heads), Known.count) == (2, 0)
    read(Known, [requests[1], requests[4]])
    assert Known.count == 2
    read(Known, [requests[0], requests[2]])
    assert Known.count == 2
