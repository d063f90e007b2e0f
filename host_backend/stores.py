"""The composition root of what is stored: which key store, which watermark store, which vault a configuration means.

Concrete stores are named only here.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from host_backend.config import Config, VaultConfig
from host_backend.config.storage import KeyStorage, MarksInFile, MarksInMemory
from host_backend.enclave.endpoint import Endpoint
from host_backend.errors import ConfigError
from host_backend.keystore.base import KeyStore, StoredKey
from host_backend.keystore.file import FileKeyStore
from host_backend.log import fields
from host_backend.vault.keys import VaultKey
from host_backend.vault.provisioning import Provisioning, open_provisioning
from host_backend.vault.resealing import Resealing, open_resealing
from host_backend.vault.vault import Vault, open_vault
from host_backend.watermark.base import MarksAdmin, WatermarkStore
from host_backend.watermark.file.admin import FileMarks, marks_left_in
from host_backend.watermark.file.store import FileWatermarkStore, Writing
from host_backend.watermark.memory import MemoryMarks, MemoryWatermarkStore, kept_in_memory

logger = logging.getLogger(__name__)


def marks_admin(config: Config) -> MarksAdmin:
    """Return what looks after the marks of a configuration."""
    match config.watermark.storage:
        case MarksInMemory():
            return MemoryMarks(config.base_dir)
        case MarksInFile(in_memory_allowed):
            return FileMarks(config.base_dir, in_memory_allowed=in_memory_allowed)


async def create_watermark_store_for_first_key(config: Config) -> None:
    """Make the watermark store before the first key of a configuration; do nothing when there is any key or store.

    Keys that exist without a store may have signed before: for them only `watermark init` makes one.
    """
    if not config.watermark.storage.lasts:
        return
    for vault in config.vaults.values():
        if await stored_keys(vault):
            return
    admin = marks_admin(config)
    found = await asyncio.to_thread(admin.describe)
    # Where others left marks, the first `serve` makes it of those.
    if found.stored is None and found.host is None and not found.waiting:
        await asyncio.to_thread(admin.create)


async def stored_keys(config: VaultConfig) -> tuple[StoredKey, ...]:
    """Return the sealed keys of a vault; see `KeyStore.load`."""
    async with open_key_store(config.keys) as store:
        return await store.load()


@asynccontextmanager
async def open_key_store(storage: KeyStorage) -> AsyncIterator[KeyStore]:
    """Open the store that a configuration names, and let go of it at the end."""
    store = FileKeyStore(storage.path)
    try:
        yield store
    finally:
        await store.aclose()


async def migrate_watermarks(config: Config, source: Path | None) -> int:
    """Bring the marks to where the configuration keeps them now; return how many moved.

    Args:
        config: Names the driver to move to.
        source: Another folder to take marks from; None moves those of `base_dir` to another driver.

    Raises:
        HostError: Not done; the text says why.
    """
    here = FileMarks(config.base_dir, in_memory_allowed=True)
    if source is None:
        if config.watermark.storage.lasts:
            raise ConfigError("watermark.driver is file, where the marks are: name another folder with --from")
        count = len((await asyncio.to_thread(here.read)).marks)
        await asyncio.to_thread(here.retire)
        return count
    if not config.watermark.storage.lasts:
        raise ConfigError("watermark.driver is mem: marks are taken over by a store of driver file only")
    if await asyncio.to_thread(_is_same_folder, source, config.base_dir):
        raise ConfigError(f"{source} is base_dir itself: nothing to migrate")
    theirs = await asyncio.to_thread(marks_left_in, source)
    return await asyncio.to_thread(marks_admin(config).adopt, theirs)


def _is_same_folder(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


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
        match config.watermark.storage:
            case MarksInMemory():
                marks = stack.enter_context(kept_in_memory(config.base_dir))
                logger.warning(
                    "watermark.driver is mem: marks are forgotten when this host stops, and a restart can sign twice; never "
                    "for a key that bakes"
                )
                store = MemoryWatermarkStore(max_level_jump, marks)
            case MarksInFile(in_memory_allowed):
                store = await FileWatermarkStore.open(
                    config.base_dir,
                    max_level_jump=max_level_jump,
                    in_memory_allowed=in_memory_allowed,
                    writing=writing,
                )
        stack.push_async_callback(store.aclose)
        yield store


def _endpoint(config: VaultConfig) -> Endpoint:
    return Endpoint(config.enclave, config.credentials)


@asynccontextmanager
async def open_configured_provisioning(config: VaultConfig) -> AsyncIterator[Provisioning]:
    """Give what makes keys of a vault, and takes them in; see `open_provisioning`."""
    logger.info("connecting to the enclave on %s", config.enclave, extra=fields(vault=config.name))
    async with (
        open_key_store(config.keys) as store,
        open_provisioning(store, _endpoint(config), name=config.name) as provisioning,
    ):
        yield provisioning


@asynccontextmanager
async def open_configured_resealing(config: VaultConfig) -> AsyncIterator[Resealing]:
    """Give what seals the keys of a vault anew; see `open_resealing`."""
    async with (
        open_key_store(config.keys) as store,
        open_resealing(store, _endpoint(config)) as resealing,
    ):
        yield resealing


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
    async with (
        open_key_store(config.keys) as store,
        open_vault(
            store,
            _endpoint(config),
            name=config.name,
            must_succeed=must_succeed,
            on_key=on_key,
            on_restored=on_restored,
            verify_bls=config.verify_bls,
        ) as vault,
    ):
        yield vault
