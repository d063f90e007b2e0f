"""The composition root: opens what the configuration names, owns signals and the order of stopping.

Concrete stores are named only here.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

import uvicorn

from enclave_signer.curves import CurveError, self_test
from host_backend.config import Address, Config, VaultConfig
from host_backend.durable import create_folder
from host_backend.errors import ConfigError, StoreUnavailable, reason_of
from host_backend.keystore.file import FileKeyStore
from host_backend.log import fields
from host_backend.reload import PolicyReload
from host_backend.signer import Signer
from host_backend.vault import Vault, open_vault
from host_backend.watermark.file import STORE_NAME, FileWatermarkStore, create, export_marks, raise_mark
from host_backend.watermark.rule import MarkKey
from host_backend.watermark.signatory_files import SignatoryFolder

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

#: Seconds for requests under way at a stop.
STOP_S = 10
#: Client connections at once, per address; a baker has a handful. Both addresses, the enclave and the files stay below
#: the 1024 file descriptors that a process has by default.
MAX_CONNECTIONS = 480
#: Seconds that an idle client connection is kept.
KEEP_ALIVE_S = 75
#: Clients that the kernel keeps waiting while the loop is busy.
BACKLOG = 512


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


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: signals are this room's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def _http_server(app: "ASGIApp") -> _HttpServer:
    from host_backend.api.limits import LimitedHttp  # noqa: PLC0415 -- other commands need no HTTP

    # It tells of its process id and life cycle at every start; ours say what matters.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    settings = uvicorn.Config(
        app,
        http=LimitedHttp,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS + 1,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    return _HttpServer(settings)


def bind(address: Address) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The address cannot be had.
    """
    try:
        if address.host:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", address.port), family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        raise ConfigError(f"cannot listen on {address}: {reason_of(error)}") from error


async def serve(config: Config, load: Callable[[], Config]) -> None:
    """Sign for clients until SIGINT or SIGTERM; take over changed policies at SIGHUP.

    Args:
        config: What to serve.
        load: Reads the same configuration anew.

    Raises:
        HostError: The host cannot start; the text says why.
    """
    from host_backend.api.auth import RequestKeys  # noqa: PLC0415 -- other commands need no HTTP
    from host_backend.api.routes import signing_app, utility_app  # noqa: PLC0415 -- other commands need no HTTP

    addresses = _require_built(config)
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
        signer = Signer(config.policies, vaults, watermark)
        _log_keys(config, vaults)
        signing, utility = (stack.enter_context(bind(address)) for address in addresses)
        keys = config.server.authorized_keys
        request_keys = None if keys is None else RequestKeys(keys)
        servers = [
            _http_server(utility_app(vaults, watermark, stop.is_set)),
            _http_server(signing_app(signer, request_keys=request_keys)),
        ]
        async with asyncio.TaskGroup() as group:
            for server, listener in zip(servers, (utility, signing), strict=True):
                group.create_task(server.serve(sockets=[listener]))
            reloading = group.create_task(PolicyReload(config, load, signer).at_each(reload))
            _log_listening("Utility HTTP server", utility)
            _log_listening("HTTP server", signing)
            await stop.wait()
            logger.info("Shutting down...")
            reloading.cancel()
            for server in servers:
                server.should_exit = True
    logger.info("stopped")


def _require_built(config: Config) -> tuple[Address, Address]:
    """Return the two addresses; refuse what is read and not built yet: ignoring it could allow what it forbids."""
    server = config.server
    asked = {
        "server.jwt": server.jwt_users,
        "server.tls": server.tls,
        "policy_hook": config.hook,
        "watermark.driver mem": None if config.watermark.driver == "file" else config.watermark,
    }
    for name, value in asked.items():
        if value is not None:
            raise ConfigError(f"{name} is not supported yet: remove it to start without it")
    if not isinstance(server.address, Address) or not isinstance(server.utility_address, Address):
        raise ConfigError("Unix sockets are not supported yet: give an address as host:port")
    return server.address, server.utility_address


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


def _log_listening(name: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    logger.info("%s is listening for connections on %s", name, Address(host, port))


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
