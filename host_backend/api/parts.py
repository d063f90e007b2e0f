"""Answers that may be megabytes: made in steps, sent in parts, so that nobody waits for all of them."""

import asyncio
import json
from collections.abc import Iterable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from host_backend.steps import Work


class InParts(Response):
    """A response whose body was made before, for others as well.

    Args:
        parts: The body.
        content_type: What it is.
        status_code: The status.
    """

    def __init__(self, parts: Sequence[bytes], content_type: str, status_code: int = 200) -> None:
        length = str(sum(map(len, parts)))
        super().__init__(None, status_code, {"content-length": length, "content-type": content_type})
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
