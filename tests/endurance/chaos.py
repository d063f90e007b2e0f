"""Everything fails at once, under load: `python -m tests.endurance.chaos [SECONDS] [--seed N]`.

Bakers ask three hosts for blocks, preattestations and attestations at rising levels, also for what must be refused. All the
while episodes follow one another: one to three faults at once, drawn by a seed, until every kind had its turn, and again.
When the faults of an episode end, every key of every host must sign again.

In the second half no program is started again, and memory is judged: at its beginning strangers are at every port, as what
they take is kept for the next ones.

Fails when the oracle (`chaos_oracle`) saw anything that must not happen, a host was not back in time, a program had a bug
or did not stop in order, or one grows. The same seed gives the same faults in the same order, lasting as long.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles

from tests.doubles.processes import PATIENCE_S
from tests.doubles.starting import interpreters_of_their_own
from tests.endurance.chaos_clients import MAKERS, Baker, Book, Door, Probe
from tests.endurance.chaos_faults import ChaosFault, all_faults, strangers_everywhere
from tests.endurance.chaos_oracle import Height, Right
from tests.endurance.chaos_site import HOSTS, KEYS_OF, PROGRAMS, ChaoticSite, chaotic_site
from tests.endurance.resident import Watch

SEED = 20261126
DEFAULT_S = 600.0
#: Seconds between two episodes, at most.
LONGEST_PEACE_S = 2.0
#: Seconds from the end of all faults to signatures of every key: with the pauses of the link, and a program's start; and
#: after a fault whose damage is looked at again every 30 s.
BACK_S = 15.0
SLOW_BACK_S = 50.0
#: Seconds that strangers are at every port between the halves.
STRANGERS_S = 20.0
#: Faults at once, at most.
AT_ONCE = 3
#: What a bug leaves in a log.
_BUG = "Traceback"


@dataclass(frozen=True)
class Episode:
    """Faults that begin and end together, and the seconds they last; then the seconds of peace.

    Attributes:
        starts_early: Whether what was killed is started again beside the other faults; otherwise when they have ended.
    """

    faults: tuple[ChaosFault, ...]
    seconds: float
    peace_s: float
    starts_early: bool

    @property
    def slow_back(self) -> bool:
        return any(fault.slow_back for fault in self.faults)


def schedule(seed: int, faults: Sequence[ChaosFault]) -> Iterator[Episode]:
    """Yield episodes without end: every kind of fault comes once before any comes again."""
    chance = random.Random(seed)
    while True:
        deck = chance.sample(faults, len(faults))
        while deck:
            chosen: list[ChaosFault] = []
            for fault in deck[: chance.randint(1, AT_ONCE)]:
                if not any(fault.touches & other.touches for other in chosen):
                    chosen.append(fault)
            deck = [fault for fault in deck if fault not in chosen]
            seconds = max(chance.uniform(*fault.seconds) for fault in chosen)
            # What opens keys or proves an enclave fails only when it is needed.
            early = chance.random() < 0.5 or any(fault.slow_back for fault in chosen)
            yield Episode(tuple(chosen), seconds, chance.uniform(0, LONGEST_PEACE_S), early)


@dataclass
class Result:
    """What came of a run."""

    book: Book = field(default_factory=Book)
    faults: Counter[str] = field(default_factory=Counter)
    #: Seconds until each host was back, by host; and by the faults before it.
    back_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    slowest: dict[str, float] = field(default_factory=dict)
    watch: Watch | None = None
    starts: int = 0
    signatures: int = 0

    @property
    def bad(self) -> bool:
        """Whether anything happened that must not."""
        return bool(self.book.oracle.wrong or (self.watch is not None and self.watch.grows))

    def note_back(self, host: str, episode: Episode, seconds: float | None) -> None:
        names = ", ".join(fault.name for fault in episode.faults)
        limit_s = SLOW_BACK_S if episode.slow_back else BACK_S
        if seconds is None or seconds > limit_s:
            self.book.oracle.blame("not back", f"{host} after {names}: {seconds} s, of {limit_s:g}")
        else:
            self.back_s[host].append(seconds)
            self.slowest[names] = max(seconds, self.slowest.get(names, 0.0))


def run(seconds: float, folder: Path, seed: int = SEED, faults: Sequence[ChaosFault] = (), *, mount: bool) -> Result:
    """Sign under faults for so long, in a folder of its own, and judge.

    Args:
        seconds: Until no further episode begins.
        folder: Must be empty.
        seed: Of everything that chance decides here.
        faults: The kinds; all unless given.
        mount: Whether a file system may be mounted, where that is allowed.
    """
    result = Result()
    with chaotic_site(folder, seed, mount=mount) as site:
        site.start()
        bakers = _bakers(site, result.book, seed)
        end = threading.Event()
        threads = [threading.Thread(target=baker.run, args=(end,)) for baker in bakers]
        for thread in threads:
            thread.start()
        try:
            _both_halves(site, result, seconds, seed, faults or all_faults())
        finally:
            end.set()
            for thread in threads:
                thread.join(PATIENCE_S)
        for baker in bakers:
            baker.ask_for_another()
        _judge(site, result)
    return result


def _both_halves(site: ChaoticSite, result: Result, seconds: float, seed: int, faults: Sequence[ChaosFault]) -> None:
    # Their levels only rise, as all marks do.
    probes = {host: Probe(Door(result.book, partial(site.port, host)), KEYS_OF[host]) for host in HOSTS}
    episodes = partial(_episodes, site, result, probes)
    episodes(seconds / 2, schedule(seed, faults))
    crowds = ChaosFault("strangers everywhere", frozenset(), strangers_everywhere)
    episodes(0.0, iter([Episode((crowds,), min(STRANGERS_S, seconds / 10), 0.0, starts_early=False)]))
    watch = result.watch = Watch({name: site.units[name].resident for name in PROGRAMS})
    with watch.looking():
        episodes(seconds / 2, schedule(seed, [fault for fault in faults if not fault.restarts]))


def _bakers(site: ChaoticSite, book: Book, seed: int) -> list[Baker]:
    return [
        Baker(Door(book, partial(site.port, host)), key, make, f"{seed} {key.pkh} {make.__name__}")
        for host, keys in KEYS_OF.items()
        for key in keys
        for make in MAKERS
    ]


def _episodes(
    site: ChaoticSite, result: Result, probes: Mapping[str, Probe], seconds: float, episodes: Iterator[Episode]
) -> None:
    """Have one episode after the other until so many seconds have passed."""
    began = time.monotonic()
    for episode in episodes:
        with ExitStack() as stack:
            for fault in episode.faults:
                result.faults[fault.name] += 1
                stack.enter_context(fault.happening(site))
            time.sleep(episode.seconds / 2)
            if episode.starts_early:
                _try_to_start(site)
            time.sleep(episode.seconds / 2)
        healed = time.monotonic()
        site.start()
        threads = [
            threading.Thread(target=_wait_for, args=(probes[host], host, episode, healed, result)) for host in HOSTS
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        names = ", ".join(fault.name for fault in episode.faults)
        now = time.monotonic()
        print(f"{now - began:6.1f} s  {names}: {episode.seconds:.1f} s, back after {now - healed:.2f} s", flush=True)
        time.sleep(episode.peace_s)
        if time.monotonic() - began > seconds:
            return


def _try_to_start(site: ChaoticSite) -> None:
    """Start what was killed; beside other faults it may not come up."""
    for unit in site.units.values():
        if not unit.runs:
            with suppress(AssertionError):
                unit.start()


def _wait_for(probe: Probe, host: str, episode: Episode, healed: float, result: Result) -> None:
    result.note_back(host, episode, probe.back(healed, SLOW_BACK_S))


def _judge(site: ChaoticSite, result: Result) -> None:
    """Stop everything in order, and compare what is left with what the oracle knows."""
    oracle = result.book.oracle
    result.signatures = oracle.statuses[200]
    for name in (*HOSTS, "enclave", "attested enclave"):
        unit = site.units[name]
        assert unit.program is not None
        if (code := unit.program.stop()) != 0:
            oracle.blame("bad stop", f"{name}: {code}")
        unit.discard()
        result.starts += unit.lives
        if _BUG in unit.said:
            oracle.blame("bug", f"{name}: {unit.said.partition(_BUG)[2][:2000]}")
    for proxy in site.proxies.values():
        oracle.left(result.book.pkh_of, list(proxy.messages))
    marks: dict[Right, tuple[Height, str | None]] = {}
    for host in HOSTS:
        for mark in json.loads(site.marks(host))["marks"]:
            right = Right(mark["public_key_hash"], mark["chain_id"], mark["right"])
            if mark["level"] is not None:
                marks[right] = ((mark["level"], mark["round"]), mark["digest"])
    oracle.marked(marks)


def report(result: Result) -> list[str]:
    """Return the lines of the table."""
    oracle, watch = result.book.oracle, result.watch
    lines = [f"{len(result.faults)} kinds of faults, {sum(result.faults.values())} in all; {result.starts} starts"]
    lines += [f"  {name:<28}{count:>4}" for name, count in sorted(result.faults.items())]
    lines.append(f"{sum(oracle.statuses.values())} requests, {oracle.statuses[200]} signatures")
    lines += [f"  {status or 'no answer'!s:<28}{count:>6}" for status, count in sorted(oracle.statuses.items())]
    for what in ("wrong signature", "double signature", "signed though refused", "two left the host", "mark lost"):
        lines.append(f"  {what:<28}{oracle.wrong[what]:>6}")
    lines.append("seconds until every key of a host signs again")
    for host, seconds in result.back_s.items():
        cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
        lines.append(f"  {host:<18}p50 {cuts[49]:.2f}  p99 {cuts[98]:.2f}  max {max(seconds):.2f}")
    lines += [f"    {took:6.2f} after {names}" for names, took in _longest(result.slowest)]
    if watch is not None:
        lines += ["memory", *watch.report()]
        lines += [f"VIOLATION: {name} grows" for name in watch.grows]
    return [*lines, *(f"VIOLATION: {each}" for each in oracle.told)]


def _longest(slowest: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(slowest.items(), key=lambda item: -item[1])[:5]


def main() -> None:
    """Run, print the table, and fail when anything happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.chaos", description="Everything fails at once.")
    parser.add_argument("seconds", nargs="?", type=float, default=DEFAULT_S, help="how long (%(default)g)")
    parser.add_argument("--seed", type=int, default=SEED, help="the same faults in the same order (%(default)s)")
    given = parser.parse_args()
    # Ended in order: processes and mounts of a run end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, interpreters_of_their_own():
        result = run(given.seconds, Path(folder), given.seed, mount=True)
    print("\n".join(report(result)))
    sys.exit(result.bad)


if __name__ == "__main__":
    main()
