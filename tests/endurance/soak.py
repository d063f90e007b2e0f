"""Signs at a steady rate on a link that fails every ten seconds: `python -m tests.endurance.soak [SECONDS]`.

Prints how fast the memory of both programs grows (`resident`): not at all, within the error. It counts after some
quick rounds of all faults under a higher load, when everything has been used several times.

`--leak WHAT` has the enclave leak on purpose: the soak must fail then, which says what its verdict is worth.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

from tests.doubles.fault_proxy import FAULTS, Fault
from tests.doubles.known_keys import FOUR, attestation
from tests.doubles.leaky_enclave import LEAKS
from tests.doubles.processes import Program
from tests.doubles.starting import interpreters_of_their_own
from tests.endurance.faulty_link import LIMIT_S, SEED, Course, Stand, stand
from tests.endurance.resident import Watch

SIGNATURES_PER_S = 50
FAULT_EVERY_S = 10.0
FAULT_S = 1.0
#: The same in the first rounds of all faults, which do not count; and how many these are. More waits at once then than ever
#: after: what programs take for that they keep, so that afterwards only what leaks makes them larger.
WARM_UP_SIGNATURES_PER_S = 150
WARM_UP_EVERY_S = 2.0
WARM_UP_ROUNDS = 6
WARM_UP_S = WARM_UP_EVERY_S * len(FAULTS) * WARM_UP_ROUNDS
DEFAULT_S = 600.0


async def sign_steadily(course: Course, limit_s: float, first_level: int, per_s: int) -> int:
    """Ask for so many signatures a second, over HTTP; return the next level."""
    started = time.monotonic()
    level = first_level
    async with asyncio.TaskGroup() as group:
        while (now := time.monotonic()) < started + limit_s:
            level += 1
            key = FOUR[level % len(FOUR)]
            group.create_task(course.ask(key, attestation(level), http=True))
            await asyncio.sleep(max(0.0, started + (level - first_level) / per_s - now))
    return level


async def one_fault(place: Stand, fault: Fault) -> None:
    """Let a fault last for its time, then ask until there is a signature again."""
    place.proxy.begin(fault)
    await asyncio.sleep(FAULT_S)
    await asyncio.to_thread(place.proxy.heal)
    place.course.counts.faults += 1
    await place.course.back()


async def period(place: Stand, limit_s: float, level: int, faults: Iterator[Fault], every_s: float, per_s: int) -> int:
    """Sign for so long, so many times a second, with a fault every so often; return the next level."""
    ends = time.monotonic() + limit_s
    while (left_s := ends - time.monotonic()) > 0:
        async with asyncio.TaskGroup() as group:
            signing = group.create_task(sign_steadily(place.course, min(every_s, left_s), level, per_s))
            group.create_task(one_fault(place, next(faults)))
        level = signing.result()
    return level


async def run(seconds: float, folder: Path, leak: str | None) -> tuple[Course, Watch]:
    """Sign for so long, and before that for some rounds of faults, in a folder of its own."""
    async with stand(folder, SEED, leak) as place:
        programs = {"host": place.host, "enclave": place.enclave}
        watch = Watch({name: partial(_resident, program) for name, program in programs.items()}, 0.0)
        faults = cycle(FAULTS)
        level = await period(place, WARM_UP_S, 0, faults, WARM_UP_EVERY_S, WARM_UP_SIGNATURES_PER_S)
        with watch.looking():
            await period(place, seconds, level, faults, FAULT_EVERY_S, SIGNATURES_PER_S)
        place.course.counts.strange += "Traceback" in place.host.log + place.enclave.log
    return place.course, watch


def _resident(program: Program) -> tuple[int, int]:
    return 1, program.own_bytes()


def main() -> None:
    """Run, print, and fail when a program grew or anything happened that must not."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.endurance.soak", description="Signs steadily; does memory grow?"
    )
    parser.add_argument("seconds", nargs="?", type=float, default=DEFAULT_S, help="how long (%(default)g)")
    parser.add_argument("--leak", choices=LEAKS, help="what the enclave leaks on purpose: this must be found")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, interpreters_of_their_own():
        course, watch = asyncio.run(run(given.seconds, Path(folder), given.leak))
    print(course.counts)
    print(f"limit of a request {LIMIT_S:g} s; memory")
    print("\n".join(watch.report()))
    sys.exit(bool(course.counts.bad or watch.grows))


if __name__ == "__main__":
    main()
