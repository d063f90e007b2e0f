"""Marks to ask for, and short ways to use a store on disk."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path

from enclave_signer.tezos import Kind, Right, encode
from host_backend.watermark.file.admin import FileMarks
from host_backend.watermark.file.layout import BLOCK_BYTES, slot_offset
from host_backend.watermark.file.place import store_path
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from tests.doubles.faulty_blocks import FaultyDisk

ADVANCE, REPEAT = Verdict.ADVANCE, Verdict.REPEAT
KEY = MarkKey("NetXo5iVw1vBoxM", "tz1WGcYos3hL7GXYXjKrMnSFdkT7FyXnFBvf", Right.BLOCK)
OTHER = MarkKey("NetXo5iVw1vBoxM", "tz4XXtsYav3fZz2FSDa7hcx4F8sh8SaDWNME", Right.ATTESTATION)
A = Mark(10, 2, bytes(32))
B = Mark(10, 2, bytes([1] * 32))
LATER = Mark(11, 0, bytes([2] * 32))


def digest(*of: object) -> bytes:
    """A digest as long as real ones: another one for anything else."""
    return blake2b(repr(of).encode(), digest_size=32).digest()


def some_pkh(number: int) -> str:
    """The hash of a key that no one has."""
    return encode(Kind["ED25519_PUBLIC_KEY_HASH"], number.to_bytes(20))


def some_chain(number: int) -> str:
    """The id of a chain that somebody made up."""
    return encode(Kind.CHAIN_ID, number.to_bytes(4))


Scenario = Callable[[FileWatermarkStore], Awaitable[None]]


def marks_of(base_dir: Path) -> FileMarks:
    """The admin of a folder, on whatever file system tests run."""
    return FileMarks(base_dir, in_memory_allowed=True)


def created(base_dir: Path) -> Path:
    """Make a store in a folder, and return the folder."""
    marks_of(base_dir).create()
    return base_dir


def read_marks(base_dir: Path) -> dict[MarkKey, Mark]:
    """Every mark of a folder's store; none of them may be damaged."""
    stored = marks_of(base_dir).read()
    assert not stored.refused
    return dict(stored.marks)


def everything_in(folder: Path) -> dict[Path, bytes | None]:
    """Every name in a folder and below, and what the files have in them."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def spoil_copy(base_dir: Path, slot: int, copy: int) -> None:
    """Leave zeros of one copy of a slot."""
    with store_path(base_dir).open("r+b") as file:
        file.seek(slot_offset(slot, copy))
        file.write(bytes(BLOCK_BYTES))


async def opened(
    base_dir: Path, disk: FaultyDisk | None = None, *, max_level_jump: int = 5_000_000
) -> FileWatermarkStore:
    """Open the store of a folder."""
    return await FileWatermarkStore.open(
        base_dir, max_level_jump=max_level_jump, in_memory_allowed=True, blocks=(disk or FaultyDisk()).open
    )


def use(base_dir: Path, scenario: Scenario, disk: FaultyDisk | None = None) -> None:
    """Run a scenario with the store of a folder open."""

    async def run() -> None:
        store = await opened(base_dir, disk)
        try:
            await scenario(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def use_to_a_bad_end(base_dir: Path, scenario: Scenario, disk: FaultyDisk | None = None) -> str:
    """Run a scenario after which the store cannot be left in order; return what it says as often as it is closed."""

    async def run() -> str:
        store = await opened(base_dir, disk)
        await scenario(store)
        first, again = [
            str(error) for error in await asyncio.gather(store.aclose(), store.aclose(), return_exceptions=True)
        ]
        assert first == again
        return first

    return asyncio.run(run())


def advance(base_dir: Path, key: MarkKey, asked: Mark) -> None:
    """Open the store of a folder, ask for one mark, close it."""

    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(key, asked)

    use(base_dir, scenario)


async def nothing(_: FileWatermarkStore) -> None:
    """Open and close."""


def open_and_close(base_dir: Path) -> None:
    """Open the store of a folder and close it."""
    use(base_dir, nothing)


def raise_one(base_dir: Path) -> None:
    """Raise one mark of a folder's store."""
    marks_of(base_dir).raise_mark(KEY, Mark(1, 0, None))


def read_all(base_dir: Path) -> None:
    """Read a folder's store."""
    marks_of(base_dir).read()


def export(base_dir: Path) -> None:
    """Hand the marks of a folder's store to Signatory."""
    marks_of(base_dir).export()


#: Everything that needs a store that is there.
USES: tuple[Callable[[Path], None], ...] = (open_and_close, raise_one, read_all)


async def gather(*asked: Awaitable[Verdict]) -> list[object]:
    """Verdicts, and the types of what was raised."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return [answer if isinstance(answer, Verdict) else type(answer) for answer in answers]
