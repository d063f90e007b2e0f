"""Worlds at the command line: `make worlds`, and `make world SEED=…`, which tells what happens in one of them."""

import argparse
import os
import sys
import time
from operator import lt

from tests.worlds.bugs import BUGS, Bug
from tests.worlds.running import Totals, quickly, run_on_all, search
from tests.worlds.world import World

#: Requests, faults, and restarts of either half: no world has less.
LEAST = (50, 2, 1)


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds")
    parser.add_argument("--seed", type=int, help="run this world alone, and tell what happens")
    parser.add_argument("--worlds", type=int, default=300_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="one for each core if not given")
    parser.add_argument("--most", type=int, default=5000, help="worlds in which each planted bug must be found")
    parser.add_argument("--soon", action="store_true", help="look for each bug first where it showed before")
    parser.add_argument("--without-bugs", action="store_true", help="leave the planted bugs out")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed)
    failed = _many(range(options.first, options.first + options.worlds), options.processes)
    return int(failed or (not options.without_bugs and _bugs(options.most, options.soon)))


def _one(seed: int) -> int:
    with quickly():
        world = World(seed, print)
        print(f"a world of the kind: {world.kind.name}")
        outcome = world.run()
    for wrong in outcome.wrong:
        print(f"WRONG: {wrong}")
    print(
        f"{outcome.requests} requests, {outcome.signatures} signatures, {outcome.turns} turns, {len(outcome.wrong)} wrong"
    )
    return int(bool(outcome.wrong))


def _many(seeds: range, processes: int) -> bool:
    started = told = time.monotonic()

    shown = 0

    def show(totals: Totals) -> None:
        nonlocal shown
        for seed, wrong in totals.failures[shown:]:
            print(f"make world SEED={seed}  # {wrong}", flush=True)
        shown = len(totals.failures)

    def tell(totals: Totals) -> None:
        nonlocal told
        show(totals)
        if time.monotonic() - told >= 30:
            told = time.monotonic()
            print(f"{totals.counts['worlds']} worlds, {len(totals.failures)} wrong", flush=True)

    totals = run_on_all(seeds, processes, tell)
    took_s = time.monotonic() - started
    counts = totals.counts
    print(
        f"{counts['worlds']} worlds in {took_s:.0f} s on {processes} processes: {counts['worlds'] / took_s:.0f} a second"
    )
    print(f"{1e3 * totals.processor_s / counts['worlds']:.2f} ms of one core a world")
    print(f"{counts['requests']} requests, {counts['signatures']} signatures, {counts['refusals']} refusals")
    print(f"{counts['host_restarts']} restarts of hosts, {counts['enclave_restarts']} of enclaves")
    print(f"each at least {totals.fewest[0]} requests, {totals.fewest[1]} faults, {totals.fewest[2]} restarts")
    for title, table in (("kinds", totals.kinds), ("faults", totals.faults)):
        print(f"{title}: {', '.join(f'{name} {number}' for name, number in table.most_common())}")
    show(totals)
    print(f"{len(totals.failures)} worlds in which something is wrong")
    poor = any(map(lt, totals.fewest, LEAST))
    if poor:
        print(f"a world has less than it should: {LEAST[0]} requests, {LEAST[1]} faults, {LEAST[2]} restart")
    return poor or bool(totals.failures)


def _bugs(most: int, soon: bool) -> bool:
    with quickly():
        found = [_looked_for(bug, most, soon) for bug in BUGS]
    missed = found.count(False)
    print(f"{len(BUGS)} planted bugs, {missed} missed")
    return missed > 0


def _looked_for(bug: Bug, most: int, soon: bool) -> bool:
    seeds = [*dict.fromkeys((bug.soon, *range(most)))] if soon else range(most)
    found = search(bug, seeds)
    where = (
        f"not found in {most} worlds"
        if found is None
        else f"found after {seeds.index(found.seed) + 1:4} worlds: {found.wrong[0]}"
    )
    print(f"{bug.name:55} {where}"[:200], flush=True)
    return found is not None


if __name__ == "__main__":
    sys.exit(main())
