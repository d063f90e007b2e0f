"""What the applications of both addresses share: their form of JSON, and their answers where there is no route, or a bug."""

import json

from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from enclave_signer.tezos import masked
from host_backend.errors import HostError

JSON = b"application/json; charset=utf-8"


def json_line(content: object) -> bytes:
    """Return a value as compact JSON and a line feed, as Signatory sends it."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


class Json(JSONResponse):
    """Compact JSON and a line feed, as Signatory sends it."""

    media_type = JSON.decode()

    def render(self, content: object) -> bytes:
        """Return the bytes of a value."""
        return json_line(content)


def failure(text: str) -> bytes:
    """Return the body of a refusal, in Signatory's form."""
    body = [{"id": "failure", "kind": "temporary", "msg": masked(text)}]
    return json_line(body)


def retry_after(error: HostError | None) -> list[tuple[bytes, bytes]]:
    """Return the header that says when to ask again, where that is known."""
    if error is None or error.retry_after_s is None:
        return []
    return [(b"retry-after", b"%d" % error.retry_after_s)]


async def _not_found(request: Request, _: Exception) -> Response:
    text = "404 page not found\n"
    if request.url.path.startswith("/keys/keys/"):
        # Octez puts it there itself.
        text += "the address of a key for Octez is http://HOST:PORT/HASH, without /keys\n"
    return PlainTextResponse(text, 404, {"x-content-type-options": "nosniff"})


async def _wrong_method(_: Request, __: Exception) -> Response:
    return Response(status_code=405)


async def _bug(_: Request, __: Exception) -> Response:
    # Starlette raises it again after this answer, and the server logs it.
    return Response(failure("internal error"), 500, media_type=JSON.decode())


_EXCEPTIONS = {404: _not_found, 405: _wrong_method, Exception: _bug}


def answering_bugs(app: ASGIApp) -> ASGIApp:
    """Return an application that answers 500 in our form where the given one raises, and has the server log that."""
    return ServerErrorMiddleware(app, handler=_bug)


def application(routes: list[Route], *, head: bool = False) -> Starlette:
    """Return the application of these routes.

    Args:
        routes: What it answers.
        head: Whether HEAD is answered like GET.
    """
    if not head:
        for route in routes:
            # Added by Starlette wherever GET is; Signatory answers 405.
            (route.methods or set()).discard("HEAD")
    app = Starlette(routes=routes, exception_handlers=_EXCEPTIONS)
    app.router.redirect_slashes = False
    return app
