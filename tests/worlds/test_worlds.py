"""Worlds are safe and come back to life; they are the same each time; and what they must find, they find."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from operator import lt
from pathlib import Path

import pytest

from tests.doubles.consensus_oracle import reading
from tests.worlds.__main__ import LEAST
from tests.worlds.bugs import BUGS, Bug
from tests.worlds.faults import KINDS, OUTSIDE, Kind
from tests.worlds.judge import Judge, Meaning
from tests.worlds.messages import CHAIN_IDS, CHAINS, RIGHTS, message_of
from tests.worlds.running import quickly
from tests.worlds.world import Outcome, World

#: Worlds of `make test`; `make worlds` runs many more.
WORLDS = 5000
#: Worlds in which the slowest of the planted bugs is found many times.
ENOUGH = 1000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def quick() -> Iterator[None]:
    with quickly():
        yield


# Some 30 s of one core. It is the last file of the suite, when the other cores have nothing to do any more.
@pytest.mark.timeout(900)
def test_many_worlds_are_safe_and_every_planted_bug_is_found() -> None:
    # Not measured for coverage: it would take five times as long.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "tests.worlds", "--worlds", str(WORLDS), "--most", str(ENOUGH), "--soon"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 worlds in which something is wrong\n" in run.stdout
    assert f"{len(BUGS)} planted bugs, 0 missed\n" in run.stdout
    fewest = re.search(r"each at least (\d+) requests, (\d+) faults, (\d+) restarts", run.stdout)
    assert fewest is not None
    assert not any(map(lt, map(int, fewest.groups()), LEAST))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", dict.fromkeys(KINDS), ids=lambda kind: kind.name)
def test_a_seed_is_a_world(kind: Kind) -> None:
    told: list[list[str]] = [[], []]
    for lines in told:
        assert not World(5, lines.append, kind).run().wrong
    assert told[0] == told[1]
    assert len(told[0]) > 20


@pytest.mark.usefixtures("quick")
def test_outside_the_fault_model_something_is_signed_twice() -> None:
    """A store that is put back, together with an enclave that forgets: so it is no accident that no world has both."""

    def outcomes() -> Iterator[Outcome]:
        for seed in range(200):
            yield World(seed, kind=OUTSIDE).run()

    wrong = next(outcome.wrong for outcome in outcomes() if outcome.wrong)
    assert wrong[0].startswith("two messages were signed for one right")


def test_a_bug_whose_line_is_gone_is_an_error() -> None:
    bug = Bug("gone", "host_backend.signer", "Signer._mark", "no such line", "")
    with pytest.raises(AssertionError, match="not there"), bug.planted():
        pass


@pytest.mark.parametrize("right", RIGHTS)
def test_messages_mean_what_the_judge_is_told(right: str) -> None:
    meaning = Meaning(b"key", CHAINS[1], right, 2**31 - 1, 0)
    assert reading(message_of(meaning, 7)) == (right, CHAIN_IDS[1], 2**31 - 1, 0)
    assert message_of(meaning, 7) != message_of(meaning, 8)


class TestJudge:
    MEANING = Meaning(b"key", 1, "block", 5, 0)

    def judge(self) -> Judge:
        judge = Judge()
        for message in (b"one", b"other"):
            judge.learn(message, self.MEANING)
        return judge

    def test_the_same_message_twice_is_right(self) -> None:
        judge = self.judge()
        judge.made(b"key", b"one")
        judge.made(b"key", b"one")
        judge.allowed(("block", 5, 0), b"digest")
        judge.allowed(("block", 5, 0), b"digest")
        judge.keys_made(1, 1)
        assert judge.wrong == []

    def test_two_messages_for_one_right_are_wrong(self) -> None:
        judge = self.judge()
        judge.made(b"key", b"one")
        judge.made(b"key", b"other")
        assert judge.wrong == ["two messages were signed for one right: block of 6b6579 at level 5 round 0"]

    def test_what_was_not_asked_for_is_wrong(self) -> None:
        judge = self.judge()
        judge.made(b"other key", b"one")
        judge.keys_made(2, 1)
        judge.given(self.MEANING, b"one", bytes(64))
        judge.allowed(("block", 5, 0), b"digest")
        judge.allowed(("block", 5, 0), b"another")
        judge.silent(self.MEANING, "why")
        assert len(judge.wrong) == 5
