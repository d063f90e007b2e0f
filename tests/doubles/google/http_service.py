"""A small HTTP service on a TCP port or a Unix socket, whose answers may come late, or never."""

import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    method: str
    path: str
    content_type: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer; `raw` takes the place of all of it, and None in place of an answer is silence until the end."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


Answers = Callable[[Asked], Answered | None]


class _Threads(socketserver.ThreadingMixIn):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """The client may be gone."""


class _TcpServer(_Threads, socketserver.TCPServer):
    allow_reuse_address = True


class _UnixServer(_Threads, socketserver.UnixStreamServer):
    pass


@contextmanager
def http_service(
    answers: Answers, socket: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, int]]:
    """Serve on loopback, with TLS or without, or on a Unix socket; give the address."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "a client"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            answer = answers(Asked(self.command, self.path, self.headers.get("content-type"), body))
            if answer is None:
                ended.wait()
                return
            named = {"Content-Type": answer.content_type, "Content-Length": str(len(answer.body)), **answer.headers}
            head = f"HTTP/1.1 {answer.status} .\r\n" + "".join(f"{name}: {value}\r\n" for name, value in named.items())
            # In one write, or a delayed acknowledgement costs 40 ms.
            self.wfile.write(answer.raw if answer.raw is not None else head.encode() + b"\r\n" + answer.body)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = _TcpServer(("127.0.0.1", 0), Handler) if socket is None else _UnixServer(str(socket), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield ("127.0.0.1", server.socket.getsockname()[1]) if socket is None else ("", 0)
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
