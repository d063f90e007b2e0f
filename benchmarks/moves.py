"""Moves marks of the watermark store of whichever checkout's packages it gets; `benchmarks.marks` starts it.

Arguments: the store's folder, the level to start above, how many seconds for each number of rights.
Prints JSON: for each number of rights, how often the store wrote, the processor's time for all moves, and how long each
move took, both in seconds.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

import uvloop

from enclave_signer.tezos import Kind, Right, encode
from host_backend.watermark.rule import Mark, MarkKey

#: Rights that are asked together.
RIGHTS = (1, 16, 100)
#: Moves that are not counted: the first one gives the rights their places in the file.
WARM_UP = 20


class Commits:
    """How often a store has written."""

    def __init__(self) -> None:
        self.count = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count one; to be given to the store."""
        self.count += 1
        yield


def store_of(base_dir: Path) -> tuple[Any, Path]:
    """Return the class of the store, and what it opens, made when it is not there."""
    package = import_module("host_backend.watermark.file")
    if hasattr(package, "FileWatermarkStore"):  # as in version 0.1
        path = base_dir / package.STORE_NAME
        if not path.exists():
            package.create(path)
        return package.FileWatermarkStore, path
    if not any(base_dir.iterdir()):
        import_module("host_backend.watermark.file.admin").FileMarks(base_dir).create()
    return import_module("host_backend.watermark.file.store").FileWatermarkStore, base_dir


async def move(base_dir: Path, level: int, seconds: float) -> list[tuple[int, float, list[float]]]:
    """Move all rights by one level, asked together, again as soon as all are answered."""
    commits = Commits()
    kind, where = store_of(base_dir)
    store = await kind.open(where, writing=commits.writing)
    found: list[tuple[int, float, list[float]]] = []
    for rights in RIGHTS:
        pkhs = [encode(Kind["ED25519_PUBLIC_KEY_HASH"], number.to_bytes(20)) for number in range(rights)]
        keys = [MarkKey("NetXo5iVw1vBoxM", pkh, Right.ATTESTATION) for pkh in pkhs]
        took: list[float] = []
        busy = 0.0
        end = time.perf_counter() + seconds
        while len(took) <= WARM_UP or time.perf_counter() < end:
            if len(took) == WARM_UP:
                commits.count, busy = 0, time.process_time()
            level += 1
            mark = Mark(level, 0, blake2b(level.to_bytes(4), digest_size=32).digest())
            begun = time.perf_counter()
            await asyncio.gather(*(store.advance(key, mark) for key in keys))
            took.append(time.perf_counter() - begun)
        found.append((commits.count, time.process_time() - busy, took[WARM_UP:]))
    await store.aclose()
    return found


if __name__ == "__main__":
    folder, first, each = sys.argv[1:]
    print(json.dumps(uvloop.run(move(Path(folder), int(first), float(each)))))
