"""The composition root: opens what the configuration names, owns signals and the order of stopping.

Concrete stores are named only here.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from enclave_signer import __version__
from enclave_signer.curves import CurveError, self_test
from host_backend.config import Config, VaultConfig
from host_backend.durable import create_folder
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.keyring import VaultKey
from host_backend.keystore.base import StoredKey
from host_backend.keystore.file import FileKeyStore
from host_backend.log import fields
from host_backend.metrics import Metrics, readings_of, registry_of
from host_backend.reload import PolicyReload
from host_backend.signer import Signer
from host_backend.vault import Vault, open_vault
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, export_marks, raise_mark, read_marks
from host_backend.watermark.memory import MemoryWatermarkStore
from host_backend.watermark.offline import give_up_store, kept_in_memory, reset_mark, take_over
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory_files import SignatoryFolder
from host_backend.watermark.sqlite_marks import forgotten_text

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
    path, folder = _store_path(config), SignatoryFolder(config.base_dir)
    if folder.forgotten:
        raise ConfigError(forgotten_text(folder))
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
    await asyncio.to_thread(create, path)
    logger.info("watermark store made", extra=fields(file=path))


async def create_watermark_store_for_first_key(config: Config) -> None:
    """Make the watermark store before the first key of a configuration; do nothing when there is any key or store.

    Keys that exist without a store may have signed before: for them only `watermark init` makes one.
    """
    if config.watermark.driver == "mem" or (config.base_dir / STORE_NAME).exists():
        return
    for vault in config.vaults.values():
        if await stored_keys(vault):
            return
    await create_watermark_store(config)


async def stored_keys(config: VaultConfig) -> tuple[StoredKey, ...]:
    """Return the sealed keys of a vault; see `KeyStore.load`."""
    return await FileKeyStore(config.key_file).load()


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
    raise_mark(_store_path(config), key, level, round_)
    # After a crash the next start reads all marks before Signatory may; until then its files stay as they are.
    if not SignatoryFolder(config.base_dir).left_behind:
        export_watermarks(config)


def export_watermarks(config: Config) -> None:
    """Hand the marks to Signatory's files while no host runs; see `export_marks`."""
    export_marks(_store_path(config))
    logger.info("watermarks written for Signatory", extra=fields(base_dir=config.base_dir))


def read_watermarks(config: Config) -> dict[MarkKey, Mark]:
    """Read every mark, also while a host runs; see `read_marks`."""
    return read_marks(_store_path(config))


def reset_watermark(config: Config, key: MarkKey, level: int, round_: int) -> Mark:
    """Move one mark anywhere while no host runs, for Signatory as well; see `reset_mark`."""
    _store_path(config)
    return reset_mark(config.base_dir, key, level, round_)


async def migrate_watermarks(config: Config, source: Path | None) -> int:
    """Bring the marks to where the configuration keeps them now; return how many moved.

    Args:
        config: Names the driver to move to.
        source: Another folder to take marks from; None moves those of `base_dir` to another driver.

    Raises:
        HostError: Not done; the text says why.
    """
    if source is None:
        if config.watermark.driver == "mem":
            return await asyncio.to_thread(give_up_store, config.base_dir)
        raise ConfigError("watermark.driver is file, where the marks are: name another folder with --from")
    path = _store_path(config)
    if not path.exists() and not SignatoryFolder(config.base_dir).left_behind:
        await create_watermark_store(config)
    return await asyncio.to_thread(take_over, config.base_dir, source)


def _store_path(config: Config) -> Path:
    if config.watermark.driver != "file":
        raise ConfigError(
            f"watermark.driver is {config.watermark.driver}: there is no file of marks, only the running host knows them"
        )
    return config.base_dir / STORE_NAME


@asynccontextmanager
async def open_watermark_store(config: Config) -> AsyncIterator[WatermarkStore]:
    """Open the store that the configuration names, and have its folder until the end.

    Raises:
        ConfigError: It is not there, or its folder belongs to another driver or process; the text says what to do.
        StoreUnavailable: It cannot be read or written.
    """
    max_level_jump = config.watermark.max_level_jump
    async with AsyncExitStack() as stack:
        store: WatermarkStore
        if config.watermark.driver == "mem":
            marks = stack.enter_context(kept_in_memory(config.base_dir))
            logger.warning(
                "watermark.driver is mem: marks are forgotten when this host stops, and a restart can sign twice; never "
                "for a key that bakes"
            )
            store = MemoryWatermarkStore(max_level_jump, marks)
        else:
            await create_watermark_store_after_signatory(config)
            store = await FileWatermarkStore.open(config.base_dir / STORE_NAME, max_level_jump=max_level_jump)
        stack.push_async_callback(store.aclose)
        yield store


@asynccontextmanager
async def open_configured_vault(
    config: VaultConfig,
    *,
    must_succeed: bool = True,
    on_key: Callable[[VaultKey], None] = lambda _: None,
    on_restored: Callable[[int, int], None] = lambda _done, _all: None,
) -> AsyncIterator[Vault]:
    """Open one vault of a configuration; see `open_vault`."""
    logger.info("connecting to the enclave on %s", config.enclave, extra=fields(vault=config.name))
    opened = open_vault(
        FileKeyStore(config.key_file),
        host=config.enclave.host,
        port=config.enclave.port,
        credentials=config.credentials,
        name=config.name,
        must_succeed=must_succeed,
        on_key=on_key,
        on_restored=on_restored,
        verify_bls=config.verify_bls,
    )
    async with opened as vault:
        yield vault


async def serve(config: Config, load: Callable[[], Config], *, list_keys: bool = True) -> None:
    """Sign for clients until SIGINT or SIGTERM; take over changed policies at SIGHUP.

    Args:
        config: What to serve.
        load: Reads the same configuration anew.
        list_keys: Whether keys that are ready are logged.

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

    _check_curves()
    stop, reload = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    async with AsyncExitStack() as stack:
        async with _until_signal(stop):
            watermark = await stack.enter_async_context(open_watermark_store(config))
            vaults = [
                await stack.enter_async_context(_serving_vault(config, name, list_keys=list_keys))
                for name in config.vaults
            ]
        if stop.is_set():
            logger.info("stopped before it was ready")
            return
        metrics = Metrics(lambda: signer.policies, config.watermark.driver)
        signer = Signer(config.policies, vaults, watermark, hook=_hook(config), observer=metrics)
        _log_missing_keys(config, vaults)
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
    return cache(lambda: registry_of(metrics, readings_of(vaults, watermark), __version__))


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

    def on_signal(number: signal.Signals) -> None:
        # Signatory's words, without the line feed at their end.
        logger.info("Captured %s", (signal.strsignal(number) or number.name).lower())
        stop.set()
        # An error once what is inside has ended.
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
    """Open a vault whose enclave may be away: it is waited for for ever, while requests are told so."""

    def on_key(key: VaultKey) -> None:
        if list_keys:
            logger.info("key ready", extra=fields(pkh=key.pkh, vault=name, active=key.pkh in config.policies))

    async with open_configured_vault(config.vaults[name], must_succeed=False, on_key=on_key) as vault:
        yield vault


def _log_missing_keys(config: Config, vaults: Sequence[Vault]) -> None:
    held = {key.pkh for vault in vaults for key in vault.keys}
    for pkh in config.policies.keys() - held:
        logger.warning("a key under `tezos` is not ready in any vault", extra=fields(pkh=pkh))


def run_serve(config: Config, load: Callable[[], Config], *, list_keys: bool = True) -> None:
    """Run `serve` on the fastest event loop there is.

    Raises:
        HostError: As `serve` does.
    """
    import uvloop  # noqa: PLC0415 -- other commands do not need it

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, load, list_keys=list_keys))
