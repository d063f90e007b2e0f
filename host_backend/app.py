"""The composition root: opens what the configuration names, owns signals and the order of stopping.

Concrete stores are named only here.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from enclave_signer import __version__
from enclave_signer.curves import CurveError, self_test
from host_backend.config import Config, VaultConfig
from host_backend.durable import create_folder
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.keystore.file import FileKeyStore
from host_backend.log import fields
from host_backend.metrics import Metrics, gauges_of, registry_of
from host_backend.reload import PolicyReload
from host_backend.signer import Signer
from host_backend.vault import Vault, open_vault
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, export_marks, raise_mark
from host_backend.watermark.rule import MarkKey
from host_backend.watermark.signatory_files import SignatoryFolder

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from starlette.types import ASGIApp

    from host_backend.signer import Hook

logger = logging.getLogger(__name__)


async def create_watermark_store(config: Config) -> None:
    """Make the watermark store of a configuration, empty; what Signatory marked is merged at every start.

    Raises:
        ConfigError: There is one, or there was one when a host here ended out of order, or the folder is in use.
        StoreUnavailable: It could not be written.
    """
    folder = SignatoryFolder(config.base_dir)
    if folder.left_behind:
        raise ConfigError(
            f"the last host on {config.base_dir} did not end in order, and its watermark store is gone: put it back; a "
            f"new one would know nothing of what was signed. If it is lost, remove {folder.in_use_file}, make a new one, "
            "and raise the marks of all keys above everything signed"
        )
    try:
        create_folder(config.base_dir)
    except OSError as error:
        raise StoreUnavailable(f"base_dir {config.base_dir} cannot be made: {error.strerror}") from error
    await asyncio.to_thread(create, config.base_dir / STORE_NAME)
    logger.info("watermark store made", extra=fields(file=config.base_dir / STORE_NAME))


async def create_watermark_store_for_first_key(config: Config) -> None:
    """Make the watermark store before the first key of a configuration; do nothing when there is any key or store.

    Keys that exist without a store may have signed before: for them only `watermark init` makes one.
    """
    if (config.base_dir / STORE_NAME).exists():
        return
    for vault in config.vaults.values():
        if await FileKeyStore(vault.key_file).load():
            return
    await create_watermark_store(config)


async def create_watermark_store_after_signatory(config: Config) -> None:
    """Make the watermark store where Signatory left marks and no host of ours has been; do nothing elsewhere.

    Raises:
        ConfigError: Its marks cannot be read; nothing may be signed without them.
    """
    folder = SignatoryFolder(config.base_dir)
    if (config.base_dir / STORE_NAME).exists() or folder.left_behind:
        return
    if await asyncio.to_thread(folder.read):
        await create_watermark_store(config)


def raise_watermark(config: Config, key: MarkKey, level: int, round_: int) -> None:
    """Move one mark up while no host runs, for Signatory as well; see `raise_mark`."""
    raise_mark(config.base_dir / STORE_NAME, key, level, round_)
    # After a crash the next start reads all marks before Signatory may; until then its files stay as they are.
    if not SignatoryFolder(config.base_dir).left_behind:
        export_watermarks(config)


def export_watermarks(config: Config) -> None:
    """Hand the marks to Signatory's files while no host runs; see `export_marks`."""
    export_marks(config.base_dir / STORE_NAME)
    logger.info("watermarks written for Signatory", extra=fields(base_dir=config.base_dir))


@asynccontextmanager
async def open_configured_vault(config: VaultConfig) -> AsyncIterator[Vault]:
    """Open one vault of a configuration; see `open_vault`."""
    logger.info("connecting to the enclave on %s", config.enclave, extra=fields(vault=config.name))
    opened = open_vault(
        FileKeyStore(config.key_file),
        host=config.enclave.host,
        port=config.enclave.port,
        credentials=config.credentials,
        name=config.name,
    )
    async with opened as vault:
        yield vault


async def serve(config: Config, load: Callable[[], Config]) -> None:
    """Sign for clients until SIGINT or SIGTERM; take over changed policies at SIGHUP.

    Args:
        config: What to serve.
        load: Reads the same configuration anew.

    Raises:
        HostError: The host cannot start; the text says why.
    """
    from host_backend.api.listeners import (  # noqa: PLC0415 -- other commands need no HTTP
        HttpServer,
        allow_connections,
        listening,
        tls_context,
    )
    from host_backend.api.routes import utility_app  # noqa: PLC0415 -- other commands need no HTTP

    _require_built(config)
    await create_watermark_store_after_signatory(config)
    _check_curves()
    stop, reload = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    async with AsyncExitStack() as stack:
        async with _until_signal(stop):
            watermark = await FileWatermarkStore.open(config.base_dir / STORE_NAME)
            stack.push_async_callback(watermark.aclose)
            vaults = [await stack.enter_async_context(open_configured_vault(vault)) for vault in config.vaults.values()]
        if stop.is_set():
            logger.info("stopped before it was ready")
            return
        metrics = Metrics(lambda: signer.policies, config.watermark.driver)
        signer = Signer(config.policies, vaults, watermark, hook=_hook(config), observer=metrics)
        _log_keys(config, vaults)
        limit = allow_connections()
        servers = [
            HttpServer(
                utility_app(vaults, watermark, stop.is_set, _registry(metrics, vaults, watermark)),
                stack.enter_context(listening(config.server.utility_address)),
                max_connections=limit,
            ),
            HttpServer(
                _signing_app(config, signer, metrics),
                stack.enter_context(listening(config.server.address)),
                max_connections=limit,
                tls=None if config.server.tls is None else tls_context(config.server.tls),
            ),
        ]
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.serve())
            logger.info("Utility HTTP server is listening for connections on %s", servers[0].address)
            logger.info("HTTP server is listening for connections on %s", servers[1].address)
            reloading = group.create_task(PolicyReload(config, load, signer).at_each(reload))
            await stop.wait()
            logger.info("Shutting down...")
            reloading.cancel()
            for server in servers:
                server.should_exit = True
    logger.info("stopped")


def _require_built(config: Config) -> None:
    """Refuse what is read and not built yet: ignoring it could allow what it forbids."""
    if config.watermark.driver != "file":
        raise ConfigError(
            f"watermark.driver {config.watermark.driver} is not supported yet: remove it to start without it"
        )


def _hook(config: Config) -> "Hook | None":
    if config.hook is None:
        return None
    from host_backend.policy_hook import PolicyHook  # noqa: PLC0415 -- most configurations have none

    return PolicyHook(config.hook)


def _signing_app(config: Config, signer: Signer, metrics: Metrics) -> "ASGIApp":
    from host_backend.api.auth import RequestKeys  # noqa: PLC0415 -- other commands need no HTTP
    from host_backend.api.routes import signing_app  # noqa: PLC0415 -- as above

    keys, users = config.server.authorized_keys, config.server.jwt_users
    login = None
    if users is not None:
        from host_backend.api.login import Login  # noqa: PLC0415 -- most configurations have no tokens
        from host_backend.api.tokens import Tokens  # noqa: PLC0415 -- as above

        login = Login(Tokens(users), metrics)
    return signing_app(signer, metrics, request_keys=None if keys is None else RequestKeys(keys), login=login)


def _registry(
    metrics: Metrics, vaults: Sequence[Vault], watermark: WatermarkStore
) -> "Callable[[], CollectorRegistry]":
    return cache(lambda: registry_of(metrics, gauges_of(vaults, watermark), __version__))


def _check_curves() -> None:
    """Pass when what verifies signatures gives its known answers here.

    Raises:
        ConfigError: A library is missing, or not the one it should be.
    """
    try:
        self_test()
    except CurveError as error:
        raise ConfigError(f"signatures could not be verified: {error}") from error


@asynccontextmanager
async def _until_signal(stop: asyncio.Event) -> AsyncIterator[None]:
    """Set `stop` at SIGINT and SIGTERM from now on, and abandon what is inside: an enclave may never answer."""
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)

    def on_signal() -> None:
        stop.set()
        # An error once what is inside has ended.
        with suppress(RuntimeError):
            limit.reschedule(loop.time())

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise


def _log_keys(config: Config, vaults: Sequence[Vault]) -> None:
    held = {key.pkh for vault in vaults for key in vault.keys}
    for vault in vaults:
        for key in vault.keys:
            logger.info("key ready", extra=fields(pkh=key.pkh, vault=vault.name, active=key.pkh in config.policies))
    for pkh in config.policies.keys() - held:
        logger.warning("a key under `tezos` is not ready in any vault", extra=fields(pkh=pkh))


def run_serve(config: Config, load: Callable[[], Config]) -> None:
    """Run `serve` on the fastest event loop there is.

    Raises:
        HostError: As `serve` does.
    """
    import uvloop  # noqa: PLC0415 -- other commands do not need it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, load))
