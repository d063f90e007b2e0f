"""`kill -9` of a host in the middle of a transaction: nothing is signed twice, no document is left half written."""

from pathlib import Path

import pytest

from tests.endurance.firestore_kills import MOMENTS, run

#: Every moment once, and one of them with the host that was started again.
KILLS = len(MOMENTS) + 1


@pytest.mark.parametrize("pessimistic", [False, True], ids=["aborts", "locks"])
def test_a_host_killed_in_a_transaction_signs_nothing_twice(tmp_path: Path, pessimistic: bool) -> None:
    counts = run(KILLS, tmp_path, pessimistic=pessimistic)
    assert counts.kills == KILLS
    assert counts.failures == (0, 0, 0, 0)
    # Half of the clients ask for their last message again, after each kill.
    assert counts.repeated >= KILLS * 8
    # The kills hit what they are aimed at.
    assert counts.only_written
    assert counts.signatures
    assert counts.refused
