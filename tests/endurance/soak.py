"""Signs at a steady rate on a link that fails every ten seconds: `python -m tests.endurance.soak [SECONDS]`.

Prints the memory of both programs at the start, in the middle and at the end: neither may grow. The start is after a first
round of all faults, when everything has been used once.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from tests.doubles.fault_proxy import FAULTS, Fault
from tests.doubles.known_keys import FOUR, attestation
from tests.endurance.faulty_link import LIMIT_S, SEED, Course, Stand, stand

SIGNATURES_PER_S = 50
FAULT_EVERY_S = 10.0
FAULT_S = 1.0
WARM_UP_S = 20.0
DEFAULT_S = 600.0
#: Growth from the middle to the end that is no growth: allocators round.
SPARE_BYTES = 4 << 20


@dataclass
class Memory:
    """Resident bytes of both programs, by when they were looked at."""

    seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def look(self, when: str, place: Stand) -> None:
        """Note and print the resident memory."""
        self.seen[when] = place.host.resident_bytes(), place.enclave.resident_bytes()
        host, enclave = (size / 2**20 for size in self.seen[when])
        print(f"{when:<8}{host:>8.1f} MiB host {enclave:>8.1f} MiB enclave", flush=True)

    @property
    def flat(self) -> bool:
        """Whether neither program grew in the second half."""
        return all(
            end <= middle + SPARE_BYTES for middle, end in zip(self.seen["middle"], self.seen["end"], strict=True)
        )


async def sign_steadily(course: Course, limit_s: float, first_level: int) -> int:
    """Ask for so many signatures a second, over HTTP; return the next level."""
    started = time.monotonic()
    level = first_level
    async with asyncio.TaskGroup() as group:
        while (now := time.monotonic()) < started + limit_s:
            level += 1
            key = FOUR[level % len(FOUR)]
            group.create_task(course.ask(key, attestation(level), http=True))
            await asyncio.sleep(max(0.0, started + (level - first_level) / SIGNATURES_PER_S - now))
    return level


async def one_fault(place: Stand, fault: Fault) -> None:
    """Let a fault last for its time, then ask until there is a signature again."""
    place.proxy.begin(fault)
    await asyncio.sleep(FAULT_S)
    await asyncio.to_thread(place.proxy.heal)
    place.course.counts.faults += 1
    await place.course.back()


async def period(place: Stand, limit_s: float, level: int, faults: Iterator[Fault]) -> int:
    """Sign for so long, with a fault every so often."""
    ends = time.monotonic() + limit_s
    while (left_s := ends - time.monotonic()) > 0:
        async with asyncio.TaskGroup() as group:
            signing = group.create_task(sign_steadily(place.course, min(FAULT_EVERY_S, left_s), level))
            group.create_task(one_fault(place, next(faults)))
        level = signing.result()
    return level


async def run(seconds: float, folder: Path) -> tuple[Course, Memory]:
    """Sign for so long in a folder of its own."""
    memory = Memory()
    faults = cycle(FAULTS)
    async with stand(folder, SEED) as place:
        level = await period(place, WARM_UP_S, 0, faults)
        memory.look("start", place)
        level = await period(place, seconds / 2, level, faults)
        memory.look("middle", place)
        await period(place, seconds / 2, level, faults)
        memory.look("end", place)
    return place.course, memory


def main() -> None:
    """Run, print, and fail when a program grew or anything happened that must not."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_S
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        course, memory = asyncio.run(run(seconds, Path(folder)))
    print(course.counts)
    print(f"limit of a request {LIMIT_S:g} s; {'flat' if memory.flat else 'GROWN'}")
    sys.exit(course.counts.bad or not memory.flat)


if __name__ == "__main__":
    main()
