"""The composition root of what is stored: which key store, which watermark store, which vault a configuration means.

Concrete stores are named only here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from host_backend.config import Config, VaultConfig
from host_backend.durable import create_folder
from host_backend.errors import ConfigError, StoreUnavailable
from host_backend.keyring import VaultKey
from host_backend.keystore.base import StoredKey
from host_backend.keystore.file import FileKeyStore
from host_backend.log import fields
from host_backend.vault import Vault, open_vault
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.file import (
    STORE_NAME,
    FileWatermarkStore,
    Writing,
    create,
    export_marks,
    raise_mark,
    read_marks,
)
from host_backend.watermark.memory import MemoryWatermarkStore
from host_backend.watermark.offline import give_up_store, kept_in_memory, reset_mark, take_over
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory_files import SignatoryFolder
from host_backend.watermark.sqlite_marks import forgotten_text

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
async def open_watermark_store(config: Config, writing: Writing) -> AsyncIterator[WatermarkStore]:
    """Open the store that the configuration names, and have its folder until the end.

    Args:
        config: Names the store.
        writing: What is around every write to a disk, for whoever measures them.

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
            store = await FileWatermarkStore.open(
                config.base_dir / STORE_NAME, max_level_jump=max_level_jump, writing=writing
            )
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
