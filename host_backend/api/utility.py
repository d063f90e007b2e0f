"""The utility routes: health, life and metrics."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from host_backend.api.application import Json, application
from host_backend.vault import Vault
from host_backend.watermark.base import WatermarkStore

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def utility_app(
    vaults: Sequence[Vault],
    watermark: WatermarkStore,
    stopping: Callable[[], bool],
    registry: "Callable[[], CollectorRegistry]",
) -> Starlette:
    """Return the application of `server.utility_address`.

    Args:
        vaults: Whose links and keys are reported.
        watermark: Whose problem is reported.
        stopping: Whether the host is about to stop.
        registry: What `/metrics` shows; made at the first request.
    """

    async def healthz(_: Request) -> Response:
        problems = [f"{vault.name}: {vault.problem}" for vault in vaults if vault.problem is not None]
        if watermark.problem is not None:
            problems.append(watermark.problem)
        if stopping():
            problems.append("stopping")
        degraded = [*(reason for vault in vaults for reason in vault.degraded), *watermark.refused.values()]
        body: dict[str, object] = {"ready": not problems}
        if problems:
            body["reasons"] = problems
        if degraded:
            body["degraded"] = degraded
        return Json(body, 503 if problems else 200)

    async def livez(_: Request) -> Response:
        return Json({"alive": True})

    async def metrics(_: Request) -> Response:
        from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest  # noqa: PLC0415 -- 60 ms, for who asks

        return Response(generate_latest(registry()), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return application(
        [
            Route("/healthz", healthz, methods=["GET"]),
            Route("/livez", livez, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ]
    )
