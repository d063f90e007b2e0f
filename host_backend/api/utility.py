"""The utility routes: the landing page, health, life, metrics, what proves the enclaves, and the description of all of these."""

from collections.abc import Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from host_backend.api.application import JSON, Json, application, json_line
from host_backend.api.description import description
from host_backend.api.health import health
from host_backend.api.landing import State, state, wants_json
from host_backend.api.landing_page import landing_page
from host_backend.api.openapi import PAGE_HEADERS
from host_backend.api.parts import InParts, gzipped, takes_gzip
from host_backend.api.reports import attestation_endpoint
from host_backend.api.route_table import REPORT, UTILITY
from host_backend.attestation.report import AskReport
from host_backend.exposition import CONTENT_TYPE
from host_backend.metrics import LastSigned
from host_backend.policy import KeyPolicy
from host_backend.steps import Kept, Steps, Work
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore

#: For caches between us and the client.
_PLAIN = {"vary": "accept-encoding"}
_GZIPPED = {**_PLAIN, "content-encoding": "gzip"}


def utility_app(
    vaults: Sequence[Vault],
    watermark: WatermarkStore,
    listed: Callable[[], Mapping[str, KeyPolicy]],
    stopping: Callable[[], bool],
    metrics_page: Callable[[], Work[tuple[bytes, ...]]],
    steps: Steps,
    signed: Mapping[str, LastSigned] | None = None,
    reports: Mapping[str, AskReport] | None = None,
) -> Starlette:
    """Return the application of `server.utility_address`.

    Args:
        vaults: Whose links and keys are reported.
        watermark: Whose problem is reported.
        listed: The policies of the keys under `tezos`, by hash; asked at each request, as they change at SIGHUP.
        stopping: Whether the host is about to stop.
        metrics_page: Begins to make what `/metrics` shows.
        steps: Does what takes long.
        signed: What each key signed last.
        reports: Asks the enclave of each vault for a token to show; None: none is shown.
    """

    def made() -> Work[tuple[bool, bytes]]:
        return health(vaults, watermark, listed(), stopping=stopping())

    def landing() -> Work[tuple[bytes, bytes]]:
        return _shown(state(made(), vaults, listed(), signed or {}, shows_tokens=reports is not None))

    answer = Kept(steps, made, always=False)
    routes = [
        *_watching(answer),
        _metrics(steps, metrics_page),
        # As anybody can ask for it, and for all keys.
        *_landing(Kept(steps, landing, always=True)),
        *_evidence(reports),
    ]
    return application(routes, head=True)


def _watching(answer: Kept[tuple[bool, bytes]]) -> list[Route]:
    """Return the routes for programs that watch."""

    async def healthz(_: Request) -> Response:
        ready, body = await answer.get()
        return InParts([body], JSON.decode(), 200 if ready else 503)

    async def health_(_: Request) -> Response:
        ready, _body = await answer.get()
        return Json({"status": "ok" if ready else "not ready"}, 200 if ready else 503)

    async def livez(_: Request) -> Response:
        return Json({"alive": True})

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/health", health_, methods=["GET"]),
        Route("/livez", livez, methods=["GET"]),
    ]


def _metrics(steps: Steps, page: Callable[[], Work[tuple[bytes, ...]]]) -> Route:
    # Kept, as anybody can ask for it, and for everything that is counted.
    plain, compressed = Kept(steps, page, always=True), Kept(steps, lambda: gzipped(page()), always=True)

    async def metrics(request: Request) -> Response:
        if takes_gzip(request):
            return InParts(await compressed.get(), CONTENT_TYPE, headers=_GZIPPED)
        return InParts(await plain.get(), CONTENT_TYPE, headers=_PLAIN)

    return Route("/metrics", metrics, methods=["GET"])


def _shown(told: Work[State]) -> Work[tuple[bytes, bytes]]:
    """Return what the landing page tells, for programs and for people."""
    now = yield from told
    return json_line(now), (yield from landing_page(now))


def _landing(kept: Kept[tuple[bytes, bytes]]) -> list[Route]:
    """Return the route that tells people, and programs that ask for JSON, what this host is and how it does."""
    headers = PAGE_HEADERS | {"vary": "accept"}

    async def landing(request: Request) -> Response:
        for_programs, for_people = await kept.get()
        if wants_json(request.headers.get("accept", "")):
            return Response(for_programs, media_type=JSON.decode(), headers=headers)
        return Response(for_people, media_type="text/html", headers=headers)

    return [Route("/", landing, methods=["GET"])]


def _evidence(reports: Mapping[str, AskReport] | None) -> list[Route]:
    """Return the route that shows tokens, if any are shown, and those that describe all routes."""
    if reports is None:
        return description(UTILITY)
    shown = Route("/attestation", attestation_endpoint(reports), methods=["GET"])
    return [shown, *description([*UTILITY, REPORT])]
