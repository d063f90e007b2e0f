"""The access line: method and path, status and time. Source: Signatory's `pkg/middlewares/logging.go`, with its fields.

A request that came to the signer has a line of its own there; this one is for those who log at `debug`, then.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from host_backend.errors import HostError
from host_backend.log import fields

logger = logging.getLogger(__name__)

#: Set in a scope when the signer's line tells of the request.
TOLD = "told"
#: Set in a scope when a request waits for its turn: when it came.
CAME = "came"
#: Characters of what a client made up that stand in a line.
MAX_CHARS = 200


def client_address(scope: Scope) -> str:
    """Return the network address of a client, one of IPv4 always as such; empty for a client of a Unix socket."""
    peer = scope["client"]
    address: str = peer[0] if peer else ""
    # On a socket for both kinds the kernel writes addresses of IPv4 as ones of IPv6.
    return address.removeprefix("::ffff:") if "." in address else address


def came(scope: Scope) -> float:
    """Return when a request came, by `time.perf_counter`: before its turn, if it waited for one; now, if it did not."""
    moment: float | None = scope.get(CAME)
    return time.perf_counter() if moment is None else moment


def log_access(scope: Scope, status: int, seconds: float, error: HostError | None = None) -> None:
    """Write the line of a request that has its answer.

    Args:
        scope: The request.
        status: Of the answer.
        seconds: What it took.
        error: Why it was refused.
    """
    level = logging.DEBUG if TOLD in scope else logging.INFO if error is None else error.log_level
    if not logger.isEnabledFor(level):
        return
    path = scope["path"][:MAX_CHARS]
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    start = datetime.fromtimestamp(time.time() - seconds).astimezone().isoformat(timespec="seconds")
    values: dict[str, object] = {
        "start_time": start,
        "duration": f"{seconds * 1e3:.2f}ms",
        "status": status,
        "hostname": host[:MAX_CHARS].decode("latin-1"),
        "method": scope["method"],
        "path": path,
    }
    if error is not None and TOLD not in scope:
        values["error"] = str(error)
    logger.log(level, "%s %s", scope["method"], path, extra=fields(**values))


def logged(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that writes an access line, too."""

    async def answer(request: Request) -> Response:
        started = came(request.scope)
        response = await endpoint(request)
        log_access(request.scope, response.status_code, time.perf_counter() - started)
        return response

    return answer
