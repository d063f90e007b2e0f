"""The routes that describe all routes of an address, for programs and for people."""

from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from host_backend.api.openapi import PAGE_HEADERS, document, page
from host_backend.api.route_table import OPEN, Access, Described

Endpoint = Callable[[Request], Awaitable[Response]]


def description(
    routes: Iterable[Described],
    access: Access = OPEN,
    around: Callable[[Endpoint], Endpoint] = lambda endpoint: endpoint,
) -> list[Route]:
    """Return the routes `/openapi.json` and `/docs`.

    Args:
        routes: What they describe.
        access: How clients have to say who they are.
        around: What each of the two is wrapped in.
    """
    described = [*routes]
    for_programs, for_people = document(described, access), page(described, access)

    async def openapi(_: Request) -> Response:
        return Response(for_programs, media_type="application/json")

    async def docs(_: Request) -> Response:
        return Response(for_people, media_type="text/html", headers=PAGE_HEADERS)

    return [
        Route("/openapi.json", around(openapi), methods=["GET"]),
        Route("/docs", around(docs), methods=["GET"]),
    ]
