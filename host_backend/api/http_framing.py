"""Where one HTTP request ends and the next begins: decided here, before the parser sees a byte.

llhttp has views of its own on that: with `Upgrade` it stops before the body, which then ran as a request. It also takes
`RTSP/1.0` for HTTP, several blanks for one, and requests without a host. So it is given nothing but whole heads of one
form, without `Upgrade`, and bodies that have been measured here. Both must agree on every end of a request
(`http_protocol`); whatever has another form is refused, and nothing after it is read.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

#: Bytes of a request line with its headers; Octez sends about 200. So many of trailers, too, which are read and dropped.
MAX_HEAD_BYTES = 16 * 1024
#: Headers of a request, and trailers: each takes a quarter of a microsecond, and all clients may send theirs at once.
MAX_HEADERS = 100
#: Bytes of its first line: the longest signature of a request, of a tz5 key, has 3400 of them.
MAX_FIRST_LINE_BYTES = 4096
#: Bytes of a head that is remembered: clients send the same ones again and again.
MAX_KNOWN_BYTES = 1024
#: Heads that are remembered, of all clients together: one for each key and size of messages, and 2 MB at most.
MAX_KNOWN_HEADS = 1024
#: Bytes of a line with the size of a chunk: eight digits, and extensions, which no client that we know of sends.
MAX_CHUNK_LINE_BYTES = 256
#: Chunks of a body, each of which takes some microseconds of everybody's time: the largest body in chunks of 512 bytes.
MAX_CHUNKS = 130

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_TEXT = rb"[\t -~\x80-\xff]*+"
_FIELDS = rb"(?:" + _TOKEN + rb":" + _TEXT + rb"\r\n)*+\r\n"
_REQUEST_LINE = rb"([A-Z]{1,16}+) [!-~]++ HTTP/1\.([01])\r\n"
_HEAD = re.compile(_REQUEST_LINE + _FIELDS)
_FIRST_LINE = re.compile(_REQUEST_LINE)
_BEGINS = re.compile(rb"[A-Z]{1,16}+(?: |\Z)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
#: What decides where a request ends, and where it goes.
_DECIDES = re.compile(rb"\r\n(host|content-length|transfer-encoding):[\t ]*+([^\r]*)", re.IGNORECASE)
_OFFER = re.compile(rb"\r\nupgrade:[^\r]*+", re.IGNORECASE)
_TRAILERS = re.compile(_FIELDS)
_DECIDES_TOO_LATE = re.compile(rb"(?:\A|\n)(?:content-length|transfer-encoding):", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,15}+[\t ]*+")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8}+)(?:;" + _TEXT + rb")?")
_END_OF_LINE = b"\r\n"
#: An empty line.
END_OF_HEAD: Final = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"

#: Bytes for the parser; whether a request begins with them; whether it ends with them.
Piece = tuple[bytes, bool, bool]


class NotHttp(Exception):
    """What came is no request of the one form that is read; the text says why, in the words of HTTP."""


class HeadTooLarge(Exception):
    """A head or its trailers are over a limit.

    Args:
        limit: Which one.
    """

    def __init__(self, limit: str = f"{MAX_HEAD_BYTES} bytes") -> None:
        super().__init__(f"the head of a request is over {limit}")


class RequestFraming:
    """Cuts what one client sends into requests."""

    def __init__(self) -> None:
        self._bytes = b""
        #: How many of those are in a piece already: they are left in front, for every cut would copy all that follows.
        self._at = 0
        #: How far a head is known not to end.
        self._searched = 0
        #: Bytes of a body or chunk that are still to come.
        self._left = 0
        self._chunks = 0
        self._take: Callable[[], Piece | None] = self._take_head
        #: Whether nothing is there of a request that has not ended.
        self.between_requests = True

    def cut(self, data: bytes) -> Iterator[Piece]:
        """Take received bytes, and yield the complete parts: a head always as a whole.

        Raises:
            NotHttp: Leave the client.
            HeadTooLarge: Leave the client.
        """
        self._bytes = self._bytes[self._at :] + data if self._bytes else data
        self._at, ends = 0, False
        while self._at < len(self._bytes) and (piece := self._take()):
            ends = piece[2]
            yield piece
        self.between_requests = ends and self._at == len(self._bytes)
        if self._at == len(self._bytes):
            self._bytes, self._at = b"", 0

    def _take_head(self) -> Piece | None:
        head = self._whole_head()
        if head is None:
            return None
        chunked, length, for_parser = (framing_of if len(head) <= MAX_KNOWN_BYTES else framing_of.__wrapped__)(head)
        self._searched = 0
        end = self._at + len(head)
        # A usual request is one piece.
        body = self._bytes[end : end + length]
        self._at = end + len(body)
        if chunked:
            self._take, self._chunks = self._take_chunk_line, 0
        elif len(body) < length:
            self._take, self._left = self._take_body, length - len(body)
        return for_parser + body, True, not chunked and len(body) == length

    def _whole_head(self) -> bytes | None:
        end = self._bytes.find(END_OF_HEAD, max(self._at, self._searched)) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD):
            self._check_beginning()
            return None
        if end - self._at > MAX_HEAD_BYTES:
            raise HeadTooLarge
        return self._bytes[self._at : end]

    def _check_beginning(self) -> None:
        """Refuse bytes that cannot become a head, so that the client has its answer before the time is over."""
        if len(self._bytes) - self._at > MAX_HEAD_BYTES:
            raise HeadTooLarge
        whole_line = self._bytes.find(_END_OF_LINE, self._at) >= 0
        begins = (_FIRST_LINE if whole_line else _BEGINS).match(self._bytes, self._at)
        if begins is None or _BARE_LF.search(self._bytes, max(self._at, self._searched)):
            raise NotHttp(_malformed(self._bytes[self._at :]))
        # Of the place after the cut that the next bytes bring.
        self._searched = max(0, len(self._bytes) - self._at - len(END_OF_HEAD) + 1)

    def _take_body(self) -> Piece:
        data = self._cut_off(self._left)
        self._left -= len(data)
        if not self._left:
            self._take = self._take_head
        return data, False, not self._left

    def _take_chunk_line(self) -> Piece | None:
        end = self._bytes.find(_END_OF_LINE, self._at, self._at + MAX_CHUNK_LINE_BYTES)
        if end < 0:
            if len(self._bytes) - self._at >= MAX_CHUNK_LINE_BYTES:
                raise NotHttp("a line with the size of a chunk is too long")
            if _BARE_LF.search(self._bytes, self._at):
                raise NotHttp("a chunk has no size")
            return None
        line = _CHUNK_LINE.fullmatch(self._bytes, self._at, end)
        if line is None:
            raise NotHttp("a chunk has no size")
        self._left = int(line[1], 16)
        if not self._left:
            # The end of this line stays: it may be that of the trailers, too.
            self._at, self._take = end, self._take_trailers
            return b"", False, False
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise NotHttp("there are too many chunks")
        self._at = end + len(_END_OF_LINE)
        size, whole = self._left, self._bytes[self._at : self._at + self._left + len(_END_OF_LINE)]
        if len(whole) == size + len(_END_OF_LINE) and whole.endswith(_END_OF_LINE):
            # The usual case: one piece in place of three.
            self._at, self._left = self._at + len(whole), 0
            return b"%x\r\n%b" % (size, whole), False, False
        self._take = self._take_chunk
        return b"%x\r\n" % size, False, False

    def _take_chunk(self) -> Piece | None:
        if self._left:
            data = self._cut_off(self._left)
            self._left -= len(data)
            return data, False, False
        end = self._bytes[self._at : self._at + len(_END_OF_LINE)]
        if not _END_OF_LINE.startswith(end):
            raise NotHttp("a chunk is longer than its size")
        if end != _END_OF_LINE:
            return None
        self._take = self._take_chunk_line
        return self._cut_off(len(end)), False, False

    def _take_trailers(self) -> Piece | None:
        start = max(self._at, self._searched)
        end = self._bytes.find(END_OF_HEAD, start) + len(END_OF_HEAD)
        whole = end >= len(END_OF_HEAD)
        if (end if whole else len(self._bytes)) - self._at > MAX_HEAD_BYTES:
            raise HeadTooLarge
        if not whole:
            # Others take such a line's end for one, and wait for an answer.
            if _BARE_LF.search(self._bytes, start):
                raise NotHttp("trailers are malformed")
            self._searched = max(0, len(self._bytes) - self._at - len(END_OF_HEAD) + 1)
            return None
        self._searched = 0
        trailers = self._cut_off(end - self._at)
        _check_lines(trailers)
        if not _TRAILERS.fullmatch(trailers, len(_END_OF_LINE)) or _DECIDES_TOO_LATE.search(trailers):
            raise NotHttp("trailers are malformed")
        self._take = self._take_head
        # Without the trailers: the parser would take them for headers.
        return _LAST_CHUNK, False, True

    def _cut_off(self, count: int) -> bytes:
        data = self._bytes[self._at : self._at + count]
        self._at += len(data)
        return data


@lru_cache(MAX_KNOWN_HEADS)
def framing_of(head: bytes) -> tuple[bool, int, bytes]:
    """Return whether the body comes in chunks, its length otherwise, and the head for the parser.

    Raises:
        NotHttp: The head is malformed, or does not say one thing.
        HeadTooLarge: It has too many headers, or its first line is too long.
    """
    _check_lines(head)
    if head.index(_END_OF_LINE) > MAX_FIRST_LINE_BYTES:
        raise HeadTooLarge(f"{MAX_FIRST_LINE_BYTES} bytes in its first line")
    form = _HEAD.fullmatch(head)
    if form is None:
        raise NotHttp(_malformed(head))
    hosts, length, chunked = 0, None, False
    for name, value in _DECIDES.findall(head):
        match name.lower():
            case b"host":
                hosts += 1
            case b"content-length":
                if length is not None or not _LENGTH.fullmatch(value):
                    raise NotHttp("Content-Length must be given once, as a number")
                length = int(value)
            case _:
                if chunked or value.rstrip(b"\t ").lower() != b"chunked" or form[2] == b"0":
                    raise NotHttp("Transfer-Encoding must be chunked, of HTTP/1.1, and given once")
                chunked = True
    if hosts > 1 or (hosts == 0 and form[2] == b"1"):
        raise NotHttp("Host must be given once")
    if chunked and length is not None:
        raise NotHttp("Content-Length and Transfer-Encoding exclude each other")
    if form[1] == b"CONNECT":
        raise NotHttp("this is not a proxy")
    return chunked, length or 0, _OFFER.sub(b"", head)


def _check_lines(head: bytes) -> None:
    if head.count(_END_OF_LINE) > MAX_HEADERS + 2:  # those around them
        raise HeadTooLarge(f"{MAX_HEADERS} headers")


def _malformed(head: bytes) -> str:
    return "headers are malformed" if _FIRST_LINE.match(head) else "this is not a request in HTTP/1.1"
