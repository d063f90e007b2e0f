"""Requests that are finished though their clients have left: counted, for they have no places any more.

A connection has one request under way at a time, so places bound all others. This bounds only
clients that ask, leave, and ask again.
"""

import asyncio
from collections import Counter
from typing import Any

from starlette.types import Receive, Scope, Send

from host_backend.ip_addresses import network_of
from host_backend.leaving import leave
from host_backend.sparse_log import SparseLog

#: Such requests in all, of some 100 KiB at most; they last as long as a mark and a signature may take.
LEFT_REQUESTS = 512
#: Of one address.
LEFT_REQUESTS_OF_ADDRESS = 256

TOO_MANY = "too many requests of this address go on after their clients left: retry later"
_TEXT = TOO_MANY.encode() + b"\n"
_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"content-length", str(len(_TEXT)).encode()),
    (b"connection", b"close"),
]


class LeftRequests:
    """How many there are of each address; all clients of a Unix socket have one."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._refusals = SparseLog()

    def __len__(self) -> int:
        """Return of how many addresses there are any."""
        return len(self._counts)

    def leave(self, address: str, request: asyncio.Task[Any]) -> None:
        """Let a request end where it only waits; count one that goes on, until it has ended.

        Args:
            address: The network address that it came from; empty for a client of a Unix socket.
            request: Has been begun.
        """
        if not request.done() and leave(request):
            self._count(network_of(address), request)

    def _count(self, network: str, request: "asyncio.Future[Any]") -> None:
        self._counts[network] += 1
        request.add_done_callback(lambda _: self._end(network))

    def _end(self, network: str) -> None:
        self._counts[network] -= 1
        if not self._counts[network]:
            del self._counts[network]

    def too_many(self, address: str) -> bool:
        """Return whether a request is refused: its address has its share of these, or any of them when there are no more."""
        network = network_of(address)
        count = self._counts[network]
        if count < LEFT_REQUESTS_OF_ADDRESS and (not count or self._counts.total() < LEFT_REQUESTS):
            return False
        self._refusals.warn("requests refused: too many go on after their clients left", source=network)
        return True


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request that is one too many."""
    del scope, receive
    await send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _TEXT})
