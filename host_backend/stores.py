"""The composition root of stores: which key store, which watermark store, which vault a configuration means.

Concrete stores are named only here. Those in Google's cloud are imported when they are configured: 15 ms of a start.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from host_backend.config import Config, VaultConfig
from host_backend.config.google_places import FirestorePlace
from host_backend.config.key_storage import KeysApart, KeysInBucket, KeysInFile, KeysInFirestore, KeyStorage
from host_backend.config.mark_storage import MarksInFile, MarksInFirestore, MarksInMemory
from host_backend.enclave.supervisor import DEFAULT_LIMITS, LinkLimits
from host_backend.endpoints import configured_endpoint
from host_backend.errors import ConfigError, HostError
from host_backend.keystore.apart import StoreApart
from host_backend.keystore.base import KeyStore, StoredKey
from host_backend.keystore.file import FileKeyStore
from host_backend.log import fields
from host_backend.vault.keys import VaultKey
from host_backend.vault.provisioning import Provisioning, open_provisioning
from host_backend.vault.resealing import Resealing, open_resealing
from host_backend.vault.trial import find_unopened
from host_backend.vault.vault import Vault, open_vault
from host_backend.watermark.base import MarksAdmin, WatermarkStore, Writing
from host_backend.watermark.file.admin import FileMarks, marks_left_in
from host_backend.watermark.file.place import process_of, store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.memory import MemoryMarks, MemoryWatermarkStore, kept_in_memory
from host_backend.watermark.rule import Mark, MarkKey
from host_backend.watermark.signatory.folder import SignatoryFolder

if TYPE_CHECKING:
    from host_backend.watermark.firestore.moving import WholeStore

logger = logging.getLogger(__name__)


def marks_admin(config: Config) -> MarksAdmin:
    """Return what looks after the marks of a configuration."""
    match config.watermark.storage:
        case MarksInMemory():
            return MemoryMarks(config.base_dir)
        case MarksInFile(in_memory_allowed):
            return FileMarks(config.base_dir, in_memory_allowed=in_memory_allowed)
        case MarksInFirestore(place):
            return _firestore_marks(config, place)


def _firestore_marks(config: Config, place: FirestorePlace) -> "WholeStore":
    from host_backend.watermark.firestore.moving import WholeStore  # noqa: PLC0415 -- see above

    return WholeStore(config.base_dir, place)


def process_on(config: Config) -> int | None:
    """Return the process of a host that serves this configuration's folder; None when none does, or it cannot be seen."""
    try:
        return process_of(config.base_dir)
    except HostError:
        return None


def accept_watermark_store(config: Config, store_id: str) -> None:
    """Have a store in Firestore be the one that this host signs on.

    Args:
        config: Says where it is.
        store_id: Its id, as the operator knows it.

    Raises:
        HostError: It is another one, or there is none.
    """
    match config.watermark.storage:
        case MarksInFirestore(place):
            _firestore_marks(config, place).accept(store_id)
        case storage:
            raise ConfigError(f"--accept-store is for watermark.driver gcp, and here it is {storage.driver}")


async def create_watermark_store_for_first_key(config: Config) -> None:
    """Make the watermark store before the first key of a configuration; do nothing when there is any key or store.

    Keys that exist without a store may have signed before: for them only `watermark init` makes one.
    """
    if not config.watermark.storage.lasts:
        return
    for vault in config.vaults.values():
        async with open_key_store(vault.keys) as store:
            if await store.load() or store.damaged:
                return
    admin = marks_admin(config)
    found = await asyncio.to_thread(admin.describe)
    # Where others left marks, the first `serve` makes it of those.
    if found.stored is None and found.host is None and not found.waiting:
        await asyncio.to_thread(admin.create)


async def stored_keys(config: VaultConfig) -> tuple[StoredKey, ...]:
    """Return the sealed keys of a vault; entries that are not keys are logged. See `KeyStore.load`."""
    async with open_key_store(config.keys) as store:
        keys = await store.load()
    for reason in store.damaged.values():
        logger.error("no key: %s", reason, extra=fields(vault=config.name))
    return keys


@asynccontextmanager
async def open_key_store(storage: KeyStorage) -> AsyncIterator[KeyStore]:
    """Open the store that a configuration names, and let go of it at the end."""
    store = await _key_store(storage)
    try:
        yield store
    finally:
        await store.aclose()


async def _key_store(storage: KeyStorage) -> KeyStore:
    match storage:
        case KeysInFile(path):
            return FileKeyStore(path)
        case KeysInFirestore(place):
            from host_backend.google.connecting import connect  # noqa: PLC0415 -- see above
            from host_backend.keystore.firestore import FirestoreKeyStore  # noqa: PLC0415 -- see above

            return FirestoreKeyStore(await connect(place))
        case KeysInBucket(objects):
            from host_backend.google.buckets import open_bucket  # noqa: PLC0415 -- see above
            from host_backend.keystore.gcs import BucketKeyStore  # noqa: PLC0415 -- see above

            return BucketKeyStore(await open_bucket(objects))
        case KeysApart(shared, own):
            return StoreApart(await _key_store(shared), await _key_store(own))


async def migrate_watermarks(config: Config, source: Path | None) -> int:
    """Bring the marks to where the configuration keeps them now; return how many moved.

    Args:
        config: Names the driver to move to.
        source: Another folder to take marks from; None moves those of `base_dir` to another driver.

    Raises:
        HostError: Not done; the text says why.
    """
    if source is None:
        return await asyncio.to_thread(_migrate_here, config)
    if await asyncio.to_thread(_is_same_folder, source, config.base_dir):
        raise ConfigError(f"{source} is base_dir itself: nothing to migrate")
    return await adopt_watermarks(config, await asyncio.to_thread(marks_left_in, source))


async def adopt_watermarks(config: Config, marks: Mapping[MarkKey, Mark]) -> int:
    """Raise marks to those of another program; return how many were raised.

    Raises:
        HostError: Not done; the text says why.
    """
    if not config.watermark.storage.lasts:
        raise ConfigError("watermark.driver is mem: only a store that lasts can take over marks")
    return await asyncio.to_thread(marks_admin(config).adopt, marks)


def _migrate_here(config: Config) -> int:
    """Move the marks of `base_dir` to another driver; every step may be repeated."""
    base_dir, former = config.base_dir, _former_store(config)
    file, folder = FileMarks(base_dir, in_memory_allowed=True), SignatoryFolder(base_dir)
    match config.watermark.storage:
        case MarksInFile():
            if former is None:
                raise ConfigError("watermark.driver is file, where the marks are: name another folder with --from")
            if folder.elsewhere:
                former.hand_over()
                folder.withdraw()
            if not store_path(base_dir).exists():
                # Of Signatory's files, where the marks are now.
                file.create()
            former.forget()
            count = len(file.read().marks)
        case MarksInMemory():
            count = len(file.read().marks) if former is None else len(former.hand_over())
            if former is None:
                file.retire()
            else:
                folder.note_forgotten()
                former.forget()
        case MarksInFirestore(place):
            if former is None and not store_path(base_dir).exists():
                raise ConfigError(
                    "watermark.driver is gcp, and there are no marks of another driver here: name another folder with --from, "
                    "or accept the store with `enclave-host serve --accept-store`"
                )
            target = _firestore_marks(config, place)
            target.require_taking_over()
            marks = file.read().marks if former is None else former.hand_over()
            count = len(marks)
            target.take_over(marks)
            if former is None:
                file.retire(SignatoryFolder.note_elsewhere)
    return count


def _former_store(config: Config) -> "WholeStore | None":
    """Return the store in Firestore that `base_dir` remembers, where the configuration has not its marks; else None."""
    from host_backend.watermark.firestore.place import remembered_store  # noqa: PLC0415 -- see above

    storage = config.watermark.storage
    remembered = remembered_store(config.base_dir)
    if remembered is None:
        return None
    if isinstance(storage, MarksInFirestore):
        # The configuration's credentials: those of the folder may be older.
        place = replace(
            remembered.place,
            credentials_file=storage.place.credentials_file,
            credentials_data=storage.place.credentials_data,
        )
        return None if place == storage.place else _firestore_marks(config, place)
    return _firestore_marks(config, remembered.place)


def _is_same_folder(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


@asynccontextmanager
async def open_watermark_store(config: Config, writing: Writing) -> AsyncIterator[WatermarkStore]:
    """Open the store that the configuration names, and have its folder until the end.

    Args:
        config: Names the store.
        writing: A context around every write to a disk, to measure them.

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
            case MarksInFirestore(place):
                from host_backend.google.connecting import connect  # noqa: PLC0415 -- see above
                from host_backend.watermark.firestore.store import open_marks  # noqa: PLC0415 -- see above

                database = await stack.enter_async_context(await connect(place))
                opening = open_marks(config.base_dir, database, max_level_jump=max_level_jump, writing=writing)
                store = await stack.enter_async_context(opening)
        stack.push_async_callback(store.aclose)
        yield store


@asynccontextmanager
async def open_configured_provisioning(config: VaultConfig) -> AsyncIterator[Provisioning]:
    """Give what makes keys of a vault, and takes them in; see `open_provisioning`."""
    logger.info("connecting to the enclave on %s", config.enclave, extra=fields(vault=config.name))
    async with (
        open_key_store(config.keys) as store,
        open_provisioning(store, configured_endpoint(config), name=config.name) as provisioning,
    ):
        yield provisioning


async def store_keys(config: VaultConfig, keys: Sequence[StoredKey]) -> frozenset[str]:
    """Store sealed keys in a vault's key store; see `KeyStore.add`."""
    async with open_key_store(config.keys) as store:
        return await store.add(keys)


async def find_unopened_keys(
    config: VaultConfig, keys: Sequence[StoredKey], on_tried: Callable[[], None]
) -> list[tuple[StoredKey, str]]:
    """Have the enclave of a vault open blobs on trial; see `find_unopened`."""
    return await find_unopened(configured_endpoint(config), keys, on_tried=on_tried)


@asynccontextmanager
async def open_configured_resealing(config: VaultConfig) -> AsyncIterator[Resealing]:
    """Give what seals the keys of a vault again; see `open_resealing`."""
    async with (
        open_key_store(config.keys) as store,
        open_resealing(store, configured_endpoint(config)) as resealing,
    ):
        yield resealing


@asynccontextmanager
async def open_configured_vault(
    config: VaultConfig,
    *,
    must_succeed: bool = True,
    limits: LinkLimits = DEFAULT_LIMITS,
    on_key: Callable[[VaultKey], None] = lambda _: None,
    on_restored: Callable[[int, int], None] = lambda _done, _all: None,
) -> AsyncIterator[Vault]:
    """Open one vault of a configuration; see `open_vault`."""
    logger.info("connecting to the enclave on %s", config.enclave, extra=fields(vault=config.name))
    async with (
        open_key_store(config.keys) as store,
        open_vault(
            store,
            configured_endpoint(config),
            name=config.name,
            must_succeed=must_succeed,
            limits=limits,
            on_key=on_key,
            on_restored=on_restored,
            verify_bls=config.verify_bls,
        ) as vault,
    ):
        yield vault
