"""Hosts that share a store in Firestore: they race, they are killed, and nothing is ever allowed twice."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from host_backend.errors import WatermarkRejected
from host_backend.watermark.firestore.store import open_marks
from host_backend.watermark.rule import Mark, Verdict
from tests.doubles.google.clients import connected, marks_in, signatory_marks
from tests.doubles.google.firestore import FirestoreDouble, running_firestore
from tests.doubles.google.watermark_child import KEY, mark
from tests.doubles.processes import PATIENCE_S
from tests.doubles.starting import start
from tests.endurance.firestore_race import run

RIGHTS = 64
#: After how many calls of the service a host is killed: from its first read of the store to the middle of its marks.
KILLED_AFTER = range(1, 31, 2)


@pytest.mark.parametrize("pessimistic", [False, True], ids=["aborts", "locks"])
def test_two_hosts_never_allow_two_messages_for_one_right(tmp_path: Path, pessimistic: bool) -> None:
    counts = run(RIGHTS, tmp_path, pessimistic=pessimistic)
    assert counts.rights == RIGHTS
    assert (counts.allowed_twice, counts.repeats_refused, counts.not_allowed) == (0, 0, 0)
    # They did meet.
    assert counts.refused >= RIGHTS


def killed_after(double: FirestoreDouble, calls: int, folder: Path, run: int, level: int) -> list[int]:
    """Run a host until so many calls were done, and kill it before it has the last answer; return what it learned."""
    command = [sys.executable, "-m", "tests.doubles.google.watermark_child", double.address]
    with start([*command, str(folder), str(run), str(level)], stdout=subprocess.PIPE, text=True) as host:
        left = calls

        def on_done(_method: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                host.kill()

        double.on_done = on_done
        out, _ = host.communicate(timeout=PATIENCE_S)
        double.on_done = lambda _method: None
    return [int(line) for line in out.splitlines()]


@pytest.mark.parametrize("pessimistic", [False, True], ids=["aborts", "locks"])
def test_a_host_that_is_killed_leaves_whole_documents_and_nothing_is_signed_twice(
    tmp_path: Path, pessimistic: bool
) -> None:
    with running_firestore(pessimistic=pessimistic) as double:
        # The service lets go of what a dead host has locked after a minute.
        double.documents.idle_s = 0.5
        marks_in(double, tmp_path).create()
        level = 0
        for number, calls in enumerate(KILLED_AFTER):
            told = killed_after(double, calls, tmp_path, number, level)
            found = signatory_marks(double).get(KEY)
            highest = max(told, default=level)
            # One whose answer it did not get may be there.
            assert found is None or found.level in {highest, highest + 1}
            assert found is not None or not told
            asyncio.run(_look(double, tmp_path, number, told, found))
            level = max(highest, 0 if found is None else found.level) + 1


async def _look(double: FirestoreDouble, folder: Path, run: int, told: list[int], found: Mark | None) -> None:
    async with connected(double.address) as database, open_marks(folder, database) as store:
        for each in told[-3:]:
            with pytest.raises(WatermarkRejected):
                await store.advance(KEY, mark(-1, each))
        if found is not None:
            with pytest.raises(WatermarkRejected):
                await store.advance(KEY, mark(-1, found.level))
            if told and found.level == told[-1]:
                assert await store.advance(KEY, mark(run, found.level)) is Verdict.REPEAT
        level = 1 if found is None else found.level + 1
        # What the dead host has sent may be done only now: then it is a repeat.
        assert await store.advance(KEY, mark(run, level)) in Verdict
