"""A host that only advances marks, as fast as it can, and says which it has been answered for. Made to be killed.

Arguments: the folder, a number that tells this run's messages from those of others, how many keys, the level to start above.
Prints, for every mark, `<key number> <level> <round>` once it may be signed.
"""

import asyncio
import os
import sys
from pathlib import Path

from enclave_signer.tezos.consensus import Right
from host_backend.watermark.file.store import FileWatermarkStore
from host_backend.watermark.rule import Mark, MarkKey
from tests.doubles.watermarks import digest, opened, some_pkh


def key(number: int) -> MarkKey:
    return MarkKey("NetXo5iVw1vBoxM", some_pkh(number), Right.ATTESTATION)


def mark(run: int, level: int, round_: int) -> Mark:
    return Mark(level, round_, digest(run, level, round_))


async def advance_for_ever(store: FileWatermarkStore, run: int, number: int, level: int) -> None:
    while True:
        level += 1
        for round_ in range(3):
            await store.advance(key(number), mark(run, level, round_))
            # One write, past every buffer: everything in the pipe was said, whatever happens next.
            os.write(sys.stdout.fileno(), b"%d %d %d\n" % (number, level, round_))


async def main(path: str, run: str, keys: str, first_level: str) -> None:
    store = await opened(Path(path))
    async with asyncio.TaskGroup() as group:
        for number in range(int(keys)):
            group.create_task(advance_for_ever(store, int(run), number, int(first_level)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
