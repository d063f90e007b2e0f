"""What the applications of both addresses share: their form of JSON, and how they answer where there is no route."""

import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

JSON = b"application/json; charset=utf-8"


class Json(JSONResponse):
    """Compact JSON and a line feed, as Signatory sends it."""

    media_type = JSON.decode()

    def render(self, content: object) -> bytes:
        """Return the bytes of a value."""
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"


async def _not_found(_: Request, __: Exception) -> Response:
    return PlainTextResponse("404 page not found\n", 404, {"x-content-type-options": "nosniff"})


async def _wrong_method(_: Request, __: Exception) -> Response:
    return Response(status_code=405)


_EXCEPTIONS = {404: _not_found, 405: _wrong_method}


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
