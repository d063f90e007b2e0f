"""The utility routes: health, life, metrics, and what proves the enclaves."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from host_backend.api.application import JSON, Json, application
from host_backend.api.openapi import utility_document
from host_backend.api.parts import InParts, json_list
from host_backend.api.reports import attestation_endpoint
from host_backend.attestation.report import AskReport
from host_backend.errors import EnclaveRefused
from host_backend.exposition import CONTENT_TYPE
from host_backend.steps import Kept, Steps, Work
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore


def utility_app(
    vaults: Sequence[Vault],
    watermark: WatermarkStore,
    listed: Callable[[], Collection[str]],
    stopping: Callable[[], bool],
    page: Callable[[], Work[tuple[bytes, ...]]],
    steps: Steps,
    reports: Mapping[str, AskReport] | None = None,
) -> Starlette:
    """Return the application of `server.utility_address`.

    Args:
        vaults: Whose links and keys are reported.
        watermark: Whose problem is reported.
        listed: Hashes of the keys under `tezos`; asked at each request, as they change at SIGHUP.
        stopping: Whether the host is about to stop.
        page: Begins to make what `/metrics` shows.
        steps: Does what takes long.
        reports: How the enclave of each vault is asked for a token to be shown; None: nobody is shown any.
    """
    health = Kept(steps, lambda: _health(vaults, watermark, listed(), stopping=stopping()), always=False)
    # As anybody can ask for it, and for everything that is counted.
    metrics_page = Kept(steps, page, always=True)

    async def healthz(_: Request) -> Response:
        ready, body = await health.get()
        return InParts([body], JSON.decode(), 200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return InParts(await metrics_page.get(), CONTENT_TYPE)

    routes = [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/livez", _livez, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        *_evidence_routes(reports),
    ]
    return application(routes, head=True)


async def _livez(_: Request) -> Response:
    return Json({"alive": True})


def _evidence_routes(reports: Mapping[str, AskReport] | None) -> Iterator[Route]:
    """Yield the route that shows tokens, if any are shown, and that which describes all routes."""
    described = utility_document(attestation=reports is not None)

    async def description(_: Request) -> Response:
        return Response(described, media_type=JSON.decode())

    yield Route("/openapi.json", description, methods=["GET"])
    if reports is not None:
        yield Route("/attestation", attestation_endpoint(reports), methods=["GET"])


def _health(
    vaults: Sequence[Vault], watermark: WatermarkStore, pkhs: Collection[str], *, stopping: bool
) -> Work[tuple[bool, bytes]]:
    """Return whether the host is ready, and the body that says so, and why not."""
    out = [vault.out_of_service for vault in vaults]
    idle: dict[str, str] = {}
    for pkh in list(pkhs):
        yield None
        # Most keys are done with here, at the least cost: there may be thousands.
        if not any(vault.serves(pkh) for vault in vaults) and (why := _why_idle(pkh, vaults, out)) is not None:
            idle[pkh] = why
    problems = [f"{vault.name}: {vault.problem}" for vault in vaults if vault.problem is not None]
    if idle and len(idle) == len(pkhs):
        pkh, why = next(iter(idle.items()))
        problems.append(f"no key under `tezos` can sign; the first of them, {pkh}: {why}")
    if watermark.problem is not None:
        problems.append(watermark.problem)
    if stopping:
        problems.append("stopping")
    body = b'{"ready":false' if problems else b'{"ready":true'
    if problems:
        body += b',"reasons":' + (yield from json_list(problems))
    degraded = yield from json_list(_degraded(vaults, watermark, idle, out))
    if degraded != b"[]":
        body += b',"degraded":' + degraded
    return not problems, body + b"}\n"


def _degraded(
    vaults: Sequence[Vault], watermark: WatermarkStore, idle: Mapping[str, str], out: Sequence[Mapping[str, str]]
) -> Iterator[str | None]:
    for vault in vaults:
        yield from vault.degraded
    for pkh, why in idle.items():
        # Vaults name what is out of service there.
        yield None if any(pkh in each for each in out) else f"{pkh}: {why}"
    yield from list(watermark.refused.values())


def _why_idle(pkh: str, vaults: Sequence[Vault], out: Sequence[Mapping[str, str]]) -> str | None:
    """Return why a key that no vault serves cannot sign.

    Args:
        pkh: The key's hash.
        vaults: Where it may be.
        out: The keys that are out of service in each vault, and why; taken once for all keys.

    Returns:
        The reason; None when a vault holds the key and cannot sign at all: that vault's problem is told then.
    """
    holding = [vault for vault, reasons in zip(vaults, out, strict=True) if pkh not in reasons and _holds(vault, pkh)]
    if any(vault.problem is not None for vault in holding):
        return None
    if holding:
        return "not in service yet"
    return next((reasons[pkh] for reasons in out if pkh in reasons), "in no vault")


def _holds(vault: Vault, pkh: str) -> bool:
    try:
        return vault.holds(pkh)
    except EnclaveRefused:
        # Out of service since `out` was taken.
        return True
