"""`kill -9` of the host at any moment between mark and signature: nothing is ever signed twice."""

from pathlib import Path

from tests.endurance.kill_host import run

KILLS = 20


def test_a_killed_host_signs_nothing_twice(tmp_path: Path) -> None:
    counts = run(KILLS, tmp_path)
    assert counts.kills == KILLS
    assert (counts.signed_twice, counts.lost_marks, counts.not_repeated) == (0, 0, 0)
    # The kills hit what they are aimed at: in two of three runs at least one message was between mark and signature.
    assert counts.in_between >= KILLS * 2 // 3
    assert counts.refused >= counts.in_between
    assert counts.signatures > KILLS
    assert counts.repeated + counts.free >= KILLS
