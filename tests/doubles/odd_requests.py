"""HTTP as clients might send it: requests that are odd somewhere, cut into reads in every way."""

import random
from collections.abc import Iterator

#: How many of a hundred places of a request are odd.
ODD = 3
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n"
#: Values and how they may be spelt: the usual ones first.
METHODS = (
    (b"POST", b"GET"),
    (b"HEAD", b"OPTIONS", b"CONNECT", b"PRI", b"SOURCE", b"get", b"FOO", b"M-SEARCH", b"", b"PO ST"),
)
TARGETS = (
    (b"/keys/tz1", b"/mode", b"/keys/tz1?version=2"),
    (b"*", b"h:1", b"http://h/p?q", b"/a?b#c", b"/\xe4", b"/a b", b"", b"x", b"/%41"),
)
BLANKS = (b" ",), (b"  ", b"\t", b"")
VERSIONS = (
    (b"HTTP/1.1",),
    (
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"HTTP/0.9",
        b"HTTP/1.2",
        b"RTSP/1.1",
        b"ICE/1.0",
        b"http/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1",
        b"",
    ),
)
LINE_ENDS = (b"\r\n",), (b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t", b"\n\r\n", b"\0\r\n")
COLONS = (b": ", b":", b":\t "), (b" :", b"", b"::", b":\x0b", b":\r\n ")
HOSTS = (b"h", b"127.0.0.1:6732"), (b"", b"a b", b"a,b")
LENGTH_FORMS = (
    (b"%d",),
    (b"+%d", b"0%d", b"%d,%d", b"%d ", b"0x%d", b"-%d", b"", b"99999999999999999999", b"%d;", b'"%d"'),
)
CODINGS = (
    (b"chunked", b"Chunked"),
    (
        b"gzip, chunked",
        b"chunked, gzip",
        b"identity",
        b",chunked",
        b"chunked,",
        b'"chunked"',
        b"",
        b"chunked;a=b",
        b"\x0bchunked",
    ),
)
CONNECTIONS = (
    (b"keep-alive", b"Upgrade", b"upgrade, HTTP2-Settings", b"keep-alive, Upgrade"),
    (
        b"close",
        b"Close",
        b"close, Upgrade",
        b'"close"',
        b"clos",
        b"close;",
        b"keep-alive, close",
        b"close ,x",
        b" ,close",
        b"",
    ),
)
OFFERS = (b"h2c", b"websocket", b"TLS/1.2", b"foo"), (b"", b"h2c, websocket")
EXTENSIONS = (b"",), (b";a", b";a=b", b';a="b c"', b" ;a", b"; a", b";\xff", b"\t", b" x", b";\x01")
CHUNK_SIZES = (b"%x",), (b"%X", b"00%x", b"0x%x", b"+%x", b"%x ", b"", b"000000000000000000000%x", b"-%x", b"1%x")
TRAILERS = (
    (b"",),
    (
        b"T: u\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"Content-Length: 9\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: x\r\n",
        b"Connection: close\r\n",
        b"T : u\r\n",
        b" T: u\r\n",
        b"T\r\n",
        b"T: u\n",
    ),
)
BODIES = (b'"1234"', b"", SMUGGLED, b"0\r\n\r\n", b"\r\n", b"\r\n\r\n" + SMUGGLED, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
NOISE = (b"\r\n", b"\n", b"\r", b" ", b"\0", b":", b"\t", b",", b"0", b"\xff", b"\r\n\r\n", SMUGGLED)
Spellings = tuple[tuple[bytes, ...], tuple[bytes, ...]]


class Maker:
    """Makes what a client might send."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def connection(self) -> list[bytes]:
        """Return what a connection sends, read by read; a usual request comes last."""
        requests = [self.request() for _ in range(self._chance.choice((1, 1, 2, 3)))]
        # The same head again is known already.
        requests = [request for request in requests for _ in range(self._chance.choice((1, 1, 1, 2)))]
        if self._chance.random() < 0.2:
            return [*requests, LAST]
        data = b"".join(requests)
        if self._chance.random() < 0.1:
            place = self._chance.randint(0, len(data))
            data = data[:place] + self._chance.choice(NOISE) + data[place + self._chance.randint(0, 2) :]
        return list(self._reads(data + LAST))

    def _pick(self, spellings: Spellings) -> bytes:
        return self._chance.choice(spellings[self._odd()])

    def _odd(self) -> bool:
        return self._chance.randrange(100) < ODD

    def _line(self, name: bytes, value: bytes) -> bytes:
        spelt = self._chance.choice((name, name, name.lower(), name.upper()))
        return spelt + self._pick(COLONS) + value + self._pick(LINE_ENDS)

    def request(self) -> bytes:
        """Return one request, with its body."""
        first = (METHODS, BLANKS, TARGETS, BLANKS, VERSIONS, LINE_ENDS)
        lines = [
            self._line(b"Host", self._pick(HOSTS)) for _ in range(self._chance.choice((0, 2)) if self._odd() else 1)
        ]
        body = b""
        match self._chance.randrange(8):
            case 0 | 1 | 2:
                body = self._chance.choice(BODIES)
                lines.append(self._line(b"Content-Length", self._length(body)))
            case 3 | 4 | 5:
                body = self._chunked(self._chance.choice(BODIES))
                lines.append(self._line(b"Transfer-Encoding", self._pick(CODINGS)))
        if self._odd():
            lines.append(self._line(b"Content-Length", self._length(body)))
        if self._odd():
            lines.append(self._line(b"Transfer-Encoding", self._pick(CODINGS)))
        lines += self._other_headers()
        self._chance.shuffle(lines)
        before = self._chance.choice((b"\r\n", b"\n", b" ")) if self._odd() else b""
        return before + b"".join(map(self._pick, first)) + b"".join(lines) + self._pick(LINE_ENDS) + body

    def _other_headers(self) -> Iterator[bytes]:
        if self._chance.random() < 0.4:
            yield self._line(b"Connection", self._pick(CONNECTIONS))
        if self._chance.random() < 0.4:
            yield self._line(b"Upgrade", self._pick(OFFERS))
        if self._chance.random() < 0.1:
            yield self._line(b"HTTP2-Settings", b"AAMAAABkAAQAAP__")
        if self._chance.random() < 0.2:
            yield self._line(b"Expect", self._chance.choice((b"100-continue", b"100-Continue", b"x")))
        if self._chance.random() < 0.2:
            yield self._line(
                self._chance.choice((b"X", b"X-Upgrade", b"Content-Length-2")), self._chance.choice((b"", b"\xe4 y"))
            )

    def _length(self, body: bytes) -> bytes:
        count = len(body) + (self._chance.choice((-1, 1, 5)) if self._odd() else 0)
        form = self._pick(LENGTH_FORMS)
        return form % ((count,) * form.count(b"%d"))

    def _chunked(self, body: bytes) -> bytes:
        parts = []
        for piece in self._cut(body, self._chance.randint(0, 2)) if body else ():
            size = len(piece) + (self._chance.choice((-1, 1)) if self._odd() else 0)
            parts.append(self._chunk_line(size) + piece + self._pick(LINE_ENDS))
        trailers = self._pick(TRAILERS) if self._chance.random() < 0.8 else self._chance.choice(TRAILERS[1])
        return b"".join(parts) + self._chunk_line(0) + trailers + self._pick(LINE_ENDS)

    def _chunk_line(self, size: int) -> bytes:
        form = self._pick(CHUNK_SIZES)
        number = form % abs(size) if form else form
        return number + self._pick(EXTENSIONS) + self._pick(LINE_ENDS)

    def _cut(self, data: bytes, cuts: int) -> list[bytes]:
        places = sorted({self._chance.randint(1, max(1, len(data) - 1)) for _ in range(cuts)})
        return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]

    def _reads(self, data: bytes) -> Iterator[bytes]:
        match self._chance.randrange(5):
            case 0 | 1:
                yield data
            case 2:
                # A head, and what follows.
                end = data.find(b"\r\n\r\n") + 4
                yield from (part for part in (data[:end], data[end:]) if part)
            case 3:
                yield from (data[place : place + 1] for place in range(len(data)))
            case _:
                yield from self._cut(data, self._chance.randint(1, 12))
