"""Answers that are written by one call of the system, where the server can: it is a tenth of what a signature costs.

ASGI has an answer begin and end by two events, and uvicorn writes at each. So the server puts an extension into the
scope, which takes an answer as a whole. Without it the two events are sent.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from starlette.types import Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

#: Headers as ASGI has them: name and value.
Headers = Sequence[tuple[bytes, bytes]]
#: Its name among the extensions of a scope.
EXTENSION = "enclave_host.whole_answer"


class WholeAnswer:
    """The answer to one request of uvicorn's."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: "RequestResponseCycle") -> None:
        # Weak, as the scope of the cycle holds this: a circle would wait for the garbage collector.
        self._cycle = ref(cycle)

    async def send(self, status: int, content_type: bytes, body: bytes) -> None:
        """Write it, and let the next request begin; nothing of it may have been sent before."""
        # Who sends is in the task of the request, which holds it.
        cycle = cast("RequestResponseCycle", self._cycle())
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        parts = [STATUS_LINE[status]]
        for name, value in cycle.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (content_type, len(body)))
        parts.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"".join(parts))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def takes_whole(cycle: "RequestResponseCycle") -> None:
    """Have a request take its answer as a whole."""
    scope: dict[str, Any] = cast("dict[str, Any]", cycle.scope)
    scope["extensions"] = {EXTENSION: WholeAnswer(cycle)}


async def send_whole(
    scope: Scope, send: Send, status: int, content_type: bytes, body: bytes, further: Headers = ()
) -> None:
    """Answer a request, other than a HEAD.

    Args:
        scope: The request.
        send: As of ASGI.
        status: Of HTTP.
        content_type: Of the body.
        body: All of it.
        further: Further headers, which few answers have.
    """
    whole: WholeAnswer | None = scope.get("extensions", {}).get(EXTENSION)
    if whole is not None and not further:
        await whole.send(status, content_type, body)
        return
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *further]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
