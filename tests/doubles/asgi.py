"""One request to an ASGI application, without a socket."""

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.types import ASGIApp

from tests.doubles.host_process import Answer


def ask_app(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    query: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Make one request, in an event loop of its own, and return the response."""
    return asyncio.run(ask(app, method, path, body, query, headers=headers))


async def ask(
    app: ASGIApp,
    method: str,
    path: str,
    body: bytes = b"",
    query: bytes = b"",
    *,
    headers: Mapping[str, str] | None = None,
    address: str = "127.0.0.1",
) -> Answer:
    """Make one request and return the response."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "server": ("127.0.0.1", 1),
        "client": (address, 2),
        "http_version": "1.1",
    }
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    await app(scope, receive, send)
    start, *parts = sent
    sent_headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], sent_headers, b"".join(part.get("body", b"") for part in parts))
