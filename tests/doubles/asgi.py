"""One request to an ASGI application, without a socket."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp

from tests.doubles.host_process import Answer


def ask_app(app: ASGIApp, method: str, path: str, body: bytes = b"", query: bytes = b"") -> Answer:
    """Make one request and return the response."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": query,
        "headers": [],
        "server": ("127.0.0.1", 1),
        "client": ("127.0.0.1", 2),
        "http_version": "1.1",
    }
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: MutableMapping[str, Any]) -> None:
        sent.append(event)

    async def run() -> None:
        await app(scope, receive, send)

    asyncio.run(run())
    start, *parts = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], headers, b"".join(part.get("body", b"") for part in parts))
