"""The composition root of `serve`: puts its parts together, owns signals and the order of stopping."""

import asyncio
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Protocol

from enclave_signer import __version__
from enclave_signer.curves import CurveError, self_test
from host_backend.addresses import Address, UnixAddress
from host_backend.config import Config
from host_backend.descriptors import UTILITY_PLACES, signing_places
from host_backend.errors import StateConflict
from host_backend.imports import imported_to_stay
from host_backend.log import fields
from host_backend.metrics import Metrics
from host_backend.metrics_page import metrics_page
from host_backend.readings import build_reading, host_readings, process_readings
from host_backend.reload import PolicyReload
from host_backend.reload_note import write_note
from host_backend.signer import Signer
from host_backend.steps import Steps, Work
from host_backend.stores import open_configured_vault, open_watermark_store
from host_backend.vault.keys import VaultKey
from host_backend.vault.vault import Vault
from host_backend.watermark.base import WatermarkStore

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from host_backend.api.auth import RequestKeys
    from host_backend.api.beginning import Beginning
    from host_backend.api.dispatch import SigningApplication
    from host_backend.config.octez import OctezConfig
    from host_backend.octez.answers import Answers
    from host_backend.signer import Hook

logger = logging.getLogger(__name__)


class Server(Protocol):
    """What takes clients in at one address."""

    @property
    def address(self) -> Address | UnixAddress:
        """Where it listens."""
        ...

    async def serve(self) -> None:
        """Serve until `stop`, then answer those that have asked."""
        ...

    def stop(self) -> None:
        """Have `serve` end."""
        ...


async def serve(config: Config, read: Callable[[], Awaitable[Config]], *, list_keys: bool = True) -> None:
    """Sign for clients until SIGINT or SIGTERM; take over changed policies and certificates at SIGHUP.

    Args:
        config: What to serve.
        read: Reads the same configuration again, without holding up requests.
        list_keys: Whether keys that are ready are logged.

    Raises:
        HostError: The host cannot start; the text says why.
    """
    _check_curves()
    stop, reload = asyncio.Event(), asyncio.Event()
    vaults: list[Vault] = []
    _at_hangup(reload, vaults)
    metrics = Metrics(lambda: signer.policies, config.watermark.storage.driver, per_key=config.metrics.per_key)
    steps = Steps()
    async with AsyncExitStack() as stack:
        async with _until_signal(stop):
            watermark = await stack.enter_async_context(open_watermark_store(config, metrics.writing_marks))
            for name in config.vaults:
                vault = await stack.enter_async_context(_serving_vault(config, name, list_keys=list_keys))
                vaults.append(vault)
        if stop.is_set():
            logger.info("stopped before it was ready")
            return
        signer = Signer(config.policies, vaults, watermark, hook=_hook(config), observer=metrics)
        _log_idle_keys(config, vaults)
        utility = _utility_app(config, signer, vaults, watermark, metrics, steps, stop)
        keys, places = _request_keys(config), _places(config)
        signing = _signing_app(config, signer, metrics, steps, keys)
        servers = _servers(stack, config, signing, utility, places)
        if (octez := config.server.octez) is not None:
            answers = _octez_answers(octez, signer, metrics, keys, steps, signing.beginning)
            servers |= _octez_servers(stack, octez, answers, places)
        freeze_objects()
        also, note = [vault.link.reread for vault in vaults], partial(write_note, config.base_dir)
        await _run(servers, PolicyReload(config, read, signer, steps, also, note).at_each(reload), stop)
    logger.info("stopped")


def _at_hangup(reload: asyncio.Event, vaults: Sequence[Vault]) -> None:
    """At SIGHUP have the configuration read again, and whatever is out of service tried again."""

    def on_hangup() -> None:
        reload.set()
        for vault in vaults:
            vault.retry()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)


def _places(config: Config) -> int:
    addresses = 1 if config.server.octez is None else 1 + len(config.server.octez.addresses)
    return signing_places(len(config.vaults), hook=config.hook is not None, addresses=addresses)


def _servers(
    stack: AsyncExitStack, config: Config, signing: "SigningApplication", utility: "ASGIApp", places: int
) -> "dict[str, Server]":
    """Return the servers of HTTP by what the log calls them, the utility address first; they listen already."""
    from host_backend.api.forwarded import TrustedProxies  # noqa: PLC0415 -- other commands need no HTTP
    from host_backend.api.listeners import HttpServer, listening, tls_context  # noqa: PLC0415 -- as above

    server = config.server
    return {
        "Utility HTTP server": HttpServer(
            partial(signing.beginning.other, utility),
            stack.enter_context(listening(server.utility_address)),
            max_connections=UTILITY_PLACES,
        ),
        "HTTP server": HttpServer(
            signing,
            stack.enter_context(listening(server.address)),
            max_connections=places,
            tls=None if server.tls is None else tls_context(server.tls),
            proxies=TrustedProxies(server.trusted_proxies),
        ),
    }


def _octez_answers(
    octez: "OctezConfig",
    signer: Signer,
    metrics: Metrics,
    request_keys: "RequestKeys | None",
    steps: Steps,
    beginning: "Beginning",
) -> "Answers":
    from host_backend.octez.answers import Answers  # noqa: PLC0415 -- most configurations have no such sockets

    return Answers(signer, metrics, request_keys, steps, beginning, list_keys=octez.known_keys)


def _octez_servers(stack: AsyncExitStack, octez: "OctezConfig", answers: "Answers", places: int) -> "dict[str, Server]":
    """Return the servers of Octez' sockets by what the log calls them; they listen already."""
    from host_backend.api.listeners import listening  # noqa: PLC0415 -- other commands need no server
    from host_backend.octez.server import OctezServer  # noqa: PLC0415 -- as above

    servers: dict[str, Server] = {}
    for address in octez.addresses:
        name = f"Octez {'Unix' if isinstance(address, UnixAddress) else 'TCP'} server"
        listener = stack.enter_context(listening(address))
        servers[name] = OctezServer(answers, listener, max_connections=places, idle_s=octez.idle_s)
    return servers


async def _run(servers: "Mapping[str, Server]", reloading: Coroutine[None, None, None], stop: asyncio.Event) -> None:
    """Answer clients until it is time to stop, then those that have asked already."""
    async with asyncio.TaskGroup() as group:
        for server in servers.values():
            group.create_task(server.serve())
        for name, server in servers.items():
            logger.info("%s is listening for connections on %s", name, server.address)
        task = group.create_task(reloading)
        await stop.wait()
        logger.info("Shutting down...")
        task.cancel()
        for server in servers.values():
            server.stop()


def freeze_objects() -> None:
    """Look through the present objects once more for garbage, and never again.

    It is here to stay. To look through ten thousand keys takes some 60 ms, in which nothing is signed.
    """
    gc.collect()
    gc.freeze()


def _hook(config: Config) -> "Hook | None":
    if config.hook is None:
        return None
    from host_backend.policy_hook import PolicyHook  # noqa: PLC0415 -- most configurations have none

    return PolicyHook(config.hook)


def _request_keys(config: Config) -> "RequestKeys | None":
    from host_backend.api.auth import RequestKeys  # noqa: PLC0415 -- other commands need no HTTP

    keys = config.server.authorized_keys
    return None if keys is None else RequestKeys(keys)


def _signing_app(
    config: Config, signer: Signer, metrics: Metrics, steps: Steps, request_keys: "RequestKeys | None"
) -> "SigningApplication":
    from host_backend.api.signing import signing_app  # noqa: PLC0415 -- other commands need no HTTP

    users, login = config.server.jwt_users, None
    if users is not None:
        from host_backend.api.login import Login  # noqa: PLC0415 -- most configurations have no tokens
        from host_backend.api.tokens import Tokens  # noqa: PLC0415 -- as above

        login = Login(Tokens(users), metrics)
    return signing_app(signer, metrics, request_keys=request_keys, login=login, steps=steps)


def _utility_app(
    config: Config,
    signer: Signer,
    vaults: Sequence[Vault],
    watermark: WatermarkStore,
    metrics: Metrics,
    steps: Steps,
    stop: asyncio.Event,
) -> "ASGIApp":
    from host_backend.api.utility import utility_app  # noqa: PLC0415 -- other commands need no HTTP

    reports = {vault.name: vault.report for vault in vaults} if config.server.attestation else None
    readings = [build_reading(__version__), *host_readings(vaults, watermark), *process_readings()]

    def page() -> Work[tuple[bytes, ...]]:
        return metrics_page(metrics, readings)

    return utility_app(
        vaults, watermark, lambda: signer.policies, stop.is_set, page, steps, metrics.last_signed, reports
    )


def _check_curves() -> None:
    """Pass when what verifies signatures gives its known answers here.

    Raises:
        ConfigError: A library is missing, or not the one it should be.
    """
    try:
        self_test()
    except CurveError as error:
        raise StateConflict(f"signatures could not be verified: {error}") from error


@asynccontextmanager
async def _until_signal(stop: asyncio.Event) -> AsyncIterator[None]:
    """Set `stop` at SIGINT and SIGTERM from now on, and abandon the work inside: an enclave may never answer."""
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)

    def on_signal(number: signal.Signals) -> None:
        # Signatory's words, without the line feed at their end.
        logger.info("Captured %s", (signal.strsignal(number) or number.name).lower())
        stop.set()
        # An error once the work inside has ended.
        with suppress(RuntimeError):
            limit.reschedule(loop.time())

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise


@asynccontextmanager
async def _serving_vault(config: Config, name: str, *, list_keys: bool) -> AsyncIterator[Vault]:
    """Open a vault whose enclave may be away: it is waited for without end, and requests are answered 503."""

    def on_key(key: VaultKey) -> None:
        if list_keys:
            active = key.pkh in config.policies
            # Of thousands of stored keys few may be listed; the others sign nothing.
            level = logging.INFO if active else logging.DEBUG
            logger.log(level, "key ready", extra=fields(pkh=key.pkh, vault=name, active=active))

    async with open_configured_vault(config.vaults[name], must_succeed=False, on_key=on_key) as vault:
        yield vault


def _log_idle_keys(config: Config, vaults: Sequence[Vault]) -> None:
    if all(policy.allows_nothing for policy in config.policies.values()):
        logger.warning("no key under `tezos` may sign anything: every request is refused")
    held = {key.pkh for vault in vaults for key in vault.keys}
    for pkh in config.policies.keys() - held:
        logger.warning("a key under `tezos` is not ready in any vault", extra=fields(pkh=pkh))


def run_serve(config: Config, read: Callable[[], Awaitable[Config]], *, list_keys: bool = True) -> None:
    """Run `serve` on the fastest event loop there is.

    Raises:
        HostError: As `serve` does.
    """
    with imported_to_stay():
        import uvloop  # noqa: PLC0415 -- other commands do not need it

        # The HTTP servers need them later.
        from host_backend.api import listeners, signing, utility  # noqa: F401, PLC0415 -- other commands need no HTTP

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, read, list_keys=list_keys))
