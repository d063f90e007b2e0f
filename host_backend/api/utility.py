"""The utility routes: health, life and metrics."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from host_backend.api.application import Json, application
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def utility_app(
    vaults: Sequence[Vault],
    watermark: WatermarkStore,
    listed: Callable[[], Collection[str]],
    stopping: Callable[[], bool],
    registry: "Callable[[], CollectorRegistry]",
) -> Starlette:
    """Return the application of `server.utility_address`.

    Args:
        vaults: Whose links and keys are reported.
        watermark: Whose problem is reported.
        listed: Hashes of the keys under `tezos`; asked at each request, as they change at SIGHUP.
        stopping: Whether the host is about to stop.
        registry: What `/metrics` shows; made at the first request.
    """

    async def healthz(_: Request) -> Response:
        problems = [f"{vault.name}: {vault.problem}" for vault in vaults if vault.problem is not None]
        pkhs, out = listed(), [vault.out_of_service for vault in vaults]
        not_served: Collection[str] = pkhs
        for vault in vaults:
            # Most keys are done with here, at the least cost: there may be thousands.
            not_served = [pkh for pkh in not_served if not vault.serves(pkh)]
        idle = {pkh: why for pkh in not_served if (why := _why_idle(pkh, vaults, out)) is not None}
        if idle and len(idle) == len(pkhs):
            pkh, why = next(iter(idle.items()))
            problems.append(f"no key under `tezos` can sign; the first of them, {pkh}: {why}")
        if watermark.problem is not None:
            problems.append(watermark.problem)
        if stopping():
            problems.append("stopping")
        degraded = [reason for vault in vaults for reason in vault.degraded]
        # Vaults name what is out of service there.
        degraded += [f"{pkh}: {why}" for pkh, why in idle.items() if not any(pkh in each for each in out)]
        degraded += watermark.refused.values()
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
        ],
        head=True,
    )


def _why_idle(pkh: str, vaults: Sequence[Vault], out: Sequence[Mapping[str, str]]) -> str | None:
    """Return why a key that no vault serves cannot sign.

    Args:
        pkh: The key's hash.
        vaults: Where it may be.
        out: The keys that are out of service in each vault, and why; taken once for all keys.

    Returns:
        The reason; None when a vault holds the key and cannot sign at all: that vault's problem is told then.
    """
    holding = [vault for vault, reasons in zip(vaults, out, strict=True) if pkh not in reasons and vault.find(pkh)]
    if any(vault.problem is not None for vault in holding):
        return None
    if holding:
        return "not in service yet"
    return next((reasons[pkh] for reasons in out if pkh in reasons), "in no vault")
