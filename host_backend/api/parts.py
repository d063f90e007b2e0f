"""Answers that may be megabytes: made in steps, sent in parts, so that other requests go on meanwhile."""

import asyncio
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from host_backend.steps import Work

#: The fastest: pages of metrics become a twentieth all the same.
_LEVEL = 1
#: The form of gzip, not that of zlib. Source: `zlib.compressobj`.
_GZIP_BITS = 31
_WEIGHT_ZERO = re.compile(r"q=0(\.0*)?")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class InParts(Response):
    """A response whose body was made before, for others as well.

    Args:
        parts: The body.
        content_type: What it is.
        status_code: The status.
        headers: Further ones.
    """

    def __init__(
        self,
        parts: Sequence[bytes],
        content_type: str,
        status_code: int = 200,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        length = str(sum(map(len, parts)))
        super().__init__(None, status_code, {"content-length": length, "content-type": content_type, **headers})
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; everything else goes on after each part."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})


def json_list(texts: Iterable[str | None]) -> Work[bytes]:
    """Return a list of texts as compact JSON; None stands where there is no text yet."""
    made: list[str] = []
    for text in texts:
        if text is not None:
            made.append(json.dumps(text))
        yield None
    return f"[{','.join(made)}]".encode()


def gzipped(making: Work[Sequence[bytes]]) -> Work[tuple[bytes, ...]]:
    """Return the parts that are made, compressed as a whole."""
    parts = yield from making
    compressor = zlib.compressobj(_LEVEL, wbits=_GZIP_BITS)
    made: list[bytes] = []
    for part in parts:
        made.append(compressor.compress(part))
        yield None
    made.append(compressor.flush())
    return tuple(filter(None, made))


def takes_gzip(request: Request) -> bool:
    """Return whether a client takes answers in gzip. Source: RFC 9110, 12.5.3."""
    for offer in ",".join(request.headers.getlist("accept-encoding")).split(","):
        coding, _, weight = offer.replace(" ", "").lower().partition(";")
        if coding == "gzip":
            return not _WEIGHT_ZERO.fullmatch(weight)
    return False
