"""A policy hook as a real HTTP server on a free port: gives the answers of a test, and keeps the questions."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Question = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the service sends."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class PolicyService:
    """A running service; `reply` says what it answers to a question."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.questions: list[Question] = []
        self.heads: list[dict[str, str]] = []
        self.reply: Callable[[Question], Reply] = lambda _: Reply(200)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?a=b"


@contextmanager
def running_policy_service() -> Iterator[PolicyService]:
    """Run a service."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            question: Question = json.loads(body)
            service.questions.append(question)
            service.heads.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            reply = service.reply(question)
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service = PolicyService(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
