"""No mark that was answered for is lost when the process is killed, at whatever moment."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from host_backend.errors import WatermarkRejected
from host_backend.watermark.rule import Mark, Verdict
from tests.doubles.starting import start
from tests.doubles.watermark_child import key, mark
from tests.doubles.watermarks import created, digest, opened, read_marks

KILLS = 20
KEYS = 5
#: Marks to wait for before the kill, at most: some runs end in the first commits, some after hundreds.
LONGEST_RUN_MARKS = 400


def run_and_kill(base: Path, run: int, first_level: int, marks: int) -> dict[int, tuple[int, int]]:
    """Let a child advance, kill it after it has said so many marks, and return the last said per key."""
    command = [sys.executable, "-m", "tests.doubles.watermark_child", *map(str, (base, run, KEYS, first_level))]
    with start(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(marks)]
        child.kill()
        said += child.stdout.readlines()
    last: dict[int, tuple[int, int]] = {}
    for line in said:
        number, level, round_ = map(int, line.split())
        assert (level, round_) > last.get(number, (-1, -1))
        last[number] = (level, round_)
    return last


async def check(base: Path, run: int, last: dict[int, tuple[int, int]]) -> None:
    """Open the store as the next process does, and try to sign something else where the killed one has signed."""
    store = await opened(base)
    stored = read_marks(base)
    for number, place in last.items():
        found = stored[key(number)]
        assert (found.level, found.round) >= place
        assert found == mark(run, found.level, found.round)
        with pytest.raises(WatermarkRejected):
            await store.advance(key(number), Mark(*place, digest("another message")))
        assert await store.advance(key(number), found) is Verdict.REPEAT
    await store.aclose()


def test_no_mark_is_lost_by_kill_9(tmp_path: Path) -> None:
    base = created(tmp_path)
    chance = random.Random(20260417)
    level = 0
    for run in range(KILLS):
        last = run_and_kill(base, run, level, chance.randint(0, LONGEST_RUN_MARKS))
        asyncio.run(check(base, run, last))
        level = max((found.level for found in read_marks(base).values()), default=0)
