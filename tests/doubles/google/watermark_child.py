"""A host that only advances marks in the double, as fast as it can, and says for which it was answered. Made to be killed.

Arguments: the double's address, the folder, a number that tells this run's messages from those of others, the level to
start above. Prints `<level>` once a mark may be signed.
"""

import asyncio
import os
import sys
from pathlib import Path

from enclave_signer.tezos import Right
from host_backend.watermark.firestore.store import open_marks
from host_backend.watermark.rule import Mark, MarkKey
from tests.doubles.google.clients import connected
from tests.doubles.watermarks import digest, some_chain, some_pkh

KEY = MarkKey(some_chain(1), some_pkh(1), Right.ATTESTATION)


def mark(run: int, level: int) -> Mark:
    return Mark(level, 0, digest(run, level))


async def main(address: str, folder: str, run: str, first_level: str) -> None:
    async with connected(address) as database, open_marks(Path(folder), database) as store:
        level = int(first_level)
        while True:
            level += 1
            await store.advance(KEY, mark(int(run), level))
            # One write, past every buffer: everything in the pipe was said, whatever happens next.
            os.write(sys.stdout.fileno(), b"%d\n" % level)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
