"""Marks to ask for, and short ways to use a store on disk."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path

from enclave_signer.tezos import Kind, Right, encode
from host_backend.watermark.file import FileWatermarkStore, raise_mark, read_marks
from host_backend.watermark.rule import Mark, MarkKey, Verdict
from host_backend.watermark.sqlite_marks import connect_existing
from tests.doubles.failing_sqlite import FailingSqlite

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
    """The hash of a key that nobody has."""
    return encode(Kind.ED25519_PUBLIC_KEY_HASH, number.to_bytes(20))


def some_chain(number: int) -> str:
    """The id of a chain that somebody made up."""
    return encode(Kind.CHAIN_ID, number.to_bytes(4))


Scenario = Callable[[FileWatermarkStore], Awaitable[None]]


def use(path: Path, scenario: Scenario, disk: FailingSqlite | None = None) -> None:
    """Run a scenario with the store open."""

    async def run() -> None:
        connect = disk.connect if disk else connect_existing
        store = await FileWatermarkStore.open(path, connect=connect)
        try:
            await scenario(store)
        finally:
            await store.aclose()

    asyncio.run(run())


def advance(path: Path, key: MarkKey, asked: Mark) -> None:
    async def scenario(store: FileWatermarkStore) -> None:
        await store.advance(key, asked)

    use(path, scenario)


async def nothing(_store: FileWatermarkStore) -> None:
    pass


async def gather(*requests: Awaitable[Verdict]) -> list[object]:
    """Verdicts, and the types of what was raised."""
    answers = await asyncio.gather(*requests, return_exceptions=True)
    return [answer if isinstance(answer, Verdict) else type(answer) for answer in answers]


def open_and_close(path: Path) -> None:
    use(path, nothing)


def raise_one(path: Path) -> None:
    raise_mark(path, KEY, 1, 0)


#: All that is done with an existing store.
USES: tuple[Callable[[Path], object], ...] = (open_and_close, raise_one, read_marks)


def alter(path: Path, statement: str) -> None:
    """Change the file behind our back."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
