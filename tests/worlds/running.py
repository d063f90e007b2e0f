"""Many worlds, one after the other or on several cores, and what became of them."""

import gc
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from unittest.mock import patch

from enclave_signer.tezos import public_key_hash
from host_backend.vault import keys
from tests.worlds.bugs import Bug
from tests.worlds.clock import running_loop
from tests.worlds.geometry import small_files
from tests.worlds.thawing import thawed
from tests.worlds.world import Outcome, World

#: Worlds of which one process is asked at a time, and after which it collects what refers to itself.
_PORTION = 250


@dataclass(slots=True)
class Totals:
    """What became of some worlds.

    Attributes:
        counts: Of worlds, requests, signatures, refusals, and restarts of hosts and of enclaves.
        faults: Of each fault.
        kinds: Of each kind of world.
        failures: The seed of each world in which something was wrong, and what.
        fewest: The fewest requests, faults and restarts of one world.
        processor_s: Seconds of one core.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    fewest: tuple[int, ...] = (1 << 30,) * 3
    processor_s: float = 0.0

    def count(self, outcome: Outcome) -> None:
        """Count one world."""
        self.counts["worlds"] += 1
        for name in ("requests", "signatures", "refusals", "host_restarts", "enclave_restarts"):
            self.counts[name] += getattr(outcome, name)
        self.faults += outcome.faults
        self.kinds[outcome.kind] += 1
        sizes = outcome.requests, outcome.faults.total(), outcome.restarts
        self.fewest = tuple(map(min, self.fewest, sizes))
        if outcome.wrong:
            self.failures.append((outcome.seed, outcome.wrong[0]))

    def add(self, other: "Totals") -> None:
        """Count what others have counted."""
        self.counts += other.counts
        self.faults += other.faults
        self.kinds += other.kinds
        self.failures += other.failures
        self.fewest = tuple(map(min, self.fewest, other.fewest))
        self.processor_s += other.processor_s


@contextmanager
def quickly() -> Iterator[None]:
    """Run worlds meanwhile: small files, no log, no garbage collected within a world, and what else makes them faster."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    enabled = gc.isenabled()
    gc.disable()
    # What is there already need not be looked at each time.
    gc.freeze()
    # Of the same few keys all the time.
    hashes = lru_cache(64)(public_key_hash)
    try:
        with small_files(), running_loop(), thawed(), patch.object(keys, "public_key_hash", hashes):
            yield
    finally:
        gc.unfreeze()
        logging.disable(disabled)
        if enabled:
            gc.enable()


def run(seeds: Iterable[int]) -> Totals:
    """Run the worlds of some seeds; call within `quickly`."""
    totals, started = Totals(), time.process_time()
    for number, seed in enumerate(seeds, start=1):
        totals.count(World(seed).run())
        if number % _PORTION == 0:
            gc.collect()
    gc.collect()
    totals.processor_s = time.process_time() - started
    return totals


def run_on_all(seeds: range, processes: int, tell: Callable[[Totals], None]) -> Totals:
    """Run many worlds on some cores; `tell` is called now and then where there are several."""
    totals = Totals()
    if processes == 1:
        with quickly():
            return run(seeds)
    portions = [seeds[start : start + _PORTION] for start in range(0, len(seeds), _PORTION)]
    with multiprocessing.get_context("fork").Pool(processes, _begin) as pool:
        for some in pool.imap_unordered(run, portions):
            totals.add(some)
            tell(totals)
    return totals


def _begin() -> None:
    gc.collect()
    _ALWAYS.enter_context(quickly())


#: Of a process that runs nothing but worlds: never left.
_ALWAYS = ExitStack()


def search(bug: Bug, seeds: Iterable[int]) -> Outcome | None:
    """Plant a bug and return the first of some worlds in which something is wrong; call within `quickly`."""
    with bug.planted():
        for seed in seeds:
            outcome = World(seed, kind=bug.kind).run()
            if outcome.wrong:
                return outcome
    return None
