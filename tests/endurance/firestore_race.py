"""Two hosts race on one store in Firestore: `python -m tests.endurance.firestore_race RIGHTS`.

Each has a client and a folder of its own, and 32 callers. For every right - a key and a level - all callers of that key
ask at once, each for one of two messages, while one call in twenty is aborted, refused, timed out, done without an answer,
or done too late. Whoever gets no answer asks again. Then the message that was allowed is asked for once more on both hosts.

- For one right one message is allowed, never two.
- Its repeat is never refused.

Both ways in which Firestore may keep transactions apart are tried, one after the other.
"""

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from time import perf_counter

from enclave_signer.tezos import Right
from host_backend.errors import StoreUnavailable, WatermarkRejected
from host_backend.watermark.base import WatermarkStore
from host_backend.watermark.firestore.store import open_marks
from host_backend.watermark.rule import Mark, MarkKey
from tests.doubles.google.clients import connected, marks_in
from tests.doubles.google.firestore import FirestoreDouble, no_faults, running_firestore, some_faults
from tests.doubles.watermarks import digest, some_chain, some_pkh

SEED = 20261126
KEYS = 8
#: Of each host, and so 32 with eight keys.
CALLERS_PER_KEY = 4
MESSAGES = 2
FAULTS = 0.05


@dataclass
class Counts:
    """What happened, and what must never happen."""

    rights: int = 0
    allowed: int = 0
    refused: int = 0
    unavailable: int = 0
    #: Rights for which two messages were allowed; repeats that were refused; rights for which nothing was.
    allowed_twice: int = 0
    repeats_refused: int = 0
    not_allowed: int = 0
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        percentiles = quantiles(self.seconds, n=100)
        return (
            f"{self.rights} rights, {self.allowed} allowed, {self.refused} refused, {self.unavailable} without an answer; "
            f"two messages for one right: {self.allowed_twice}, repeats refused: {self.repeats_refused}, "
            f"nothing allowed: {self.not_allowed}; p50 {percentiles[49] * 1e3:.1f} ms, p99 {percentiles[98] * 1e3:.1f} ms"
        )


async def _ask(store: WatermarkStore, key: MarkKey, mark: Mark, counts: Counts) -> bool:
    """Ask until there is an answer; return whether it may be signed."""
    while True:
        began = perf_counter()
        try:
            await store.advance(key, mark)
        except StoreUnavailable:
            counts.unavailable += 1
        except WatermarkRejected:
            counts.refused += 1
            return False
        else:
            counts.allowed += 1
            return True
        finally:
            counts.seconds.append(perf_counter() - began)


async def _race_for(stores: list[WatermarkStore], key: MarkKey, level: int, counts: Counts) -> None:
    marks = [Mark(level, 0, digest(key, level, message)) for message in range(MESSAGES)]
    asked = [marks[caller % MESSAGES] for caller in range(CALLERS_PER_KEY)]
    # The hosts begin with different messages.
    callers = [(store, mark) for store, of_host in zip(stores, (asked, asked[::-1]), strict=True) for mark in of_host]
    answers = await asyncio.gather(*(_ask(store, key, mark, counts) for store, mark in callers))
    allowed = {mark.digest: mark for (_, mark), answer in zip(callers, answers, strict=True) if answer}
    counts.rights += 1
    counts.allowed_twice += len(allowed) > 1
    counts.not_allowed += not allowed
    for mark in allowed.values():
        repeated = await asyncio.gather(*(_ask(store, key, mark, counts) for store in stores))
        counts.repeats_refused += repeated.count(False)


async def _race(double: FirestoreDouble, folder: Path, rights: int) -> Counts:
    counts = Counts()
    marks_in(double, folder / "one").create()
    store_id = (folder / "one" / "watermark.firestore.json").read_text().split('"')[3]
    marks_in(double, folder / "other").accept(store_id)
    async with AsyncExitStack() as stack:
        stores: list[WatermarkStore] = []
        for name in ("one", "other"):
            database = await stack.enter_async_context(connected(double.address))
            stores.append(await stack.enter_async_context(open_marks(folder / name, database)))
        double.faults = some_faults(SEED, FAULTS)

        async def race_on(number: int) -> None:
            key = MarkKey(some_chain(1), some_pkh(number), [*Right][number % len(Right)])
            for level in range(rights // KEYS):
                await _race_for(stores, key, level, counts)

        await asyncio.gather(*(race_on(number) for number in range(KEYS)))
        double.faults = no_faults
    return counts


def run(rights: int, folder: Path, *, pessimistic: bool) -> Counts:
    """Race for a number of rights, in one of the two ways.

    Args:
        rights: How many.
        folder: For the folders of both hosts.
        pessimistic: Whether readers lock, and writers wait for them.
    """
    with running_firestore(pessimistic=pessimistic) as double:
        return asyncio.run(_race(double, folder, rights))


def main() -> None:
    """Race in both ways, and print what came of it."""
    failed = False
    for pessimistic in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            counts = run(int(sys.argv[1]), Path(folder), pessimistic=pessimistic)
        print(f"{'locks' if pessimistic else 'aborts'}: {counts}", flush=True)
        failed |= bool(counts.allowed_twice or counts.repeats_refused or counts.not_allowed)
    sys.exit(failed)


if __name__ == "__main__":
    main()
