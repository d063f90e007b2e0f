"""Whether memory grows: a slope, and how sure it is."""

import math

import pytest

from tests.endurance.resident import SPARE_BYTES, Slope, Watch, slope

HOUR_S = 3600


def test_lives_of_different_levels_have_one_slope() -> None:
    lives = [
        [(float(t), level + 100.0 * t) for t in range(start, start + 50)] for start, level in ((0, 5e6), (70, 9e5))
    ]
    found = slope(lives)
    assert found is not None
    assert found.value == pytest.approx(100.0)
    assert found.error == pytest.approx(0.0, abs=1e-6)
    assert found.seconds == 98


def test_what_goes_up_and_down_does_not_grow() -> None:
    found = slope([[(float(t), 5e7 + 1e6 * math.sin(t / 3)) for t in range(600)]])
    assert found is not None
    assert abs(found.value) < 2 * found.error
    assert not found.grows


def test_a_leak_is_found_among_ups_and_downs() -> None:
    found = slope([[(float(t), 5e7 + 1e6 * math.sin(t) + 1e4 * t) for t in range(600)]])
    assert found is not None
    assert found.value == pytest.approx(1e4, rel=0.05)
    assert found.grows


def test_what_stays_as_it_was_is_not_taken_for_many_observations() -> None:
    """600 looks at a level that changes every minute tell little more than ten."""
    levels = [0, 3, 1, 4, 1, 5, 9, 2, 6, 5]
    seen = [1e6 * level for level in levels]
    slow = slope([[(float(t), seen[t // 60]) for t in range(600)]])
    fast = slope([[(float(t), seen[t % 10]) for t in range(600)]])
    assert slow is not None
    assert fast is not None
    assert slow.error > 5 * fast.error
    assert not slow.grows


def test_growth_that_allocators_round_to_is_none() -> None:
    assert not Slope(SPARE_BYTES / HOUR_S * 0.9, 0.0, HOUR_S).grows
    assert Slope(SPARE_BYTES / HOUR_S * 1.1, 0.0, HOUR_S).grows


@pytest.mark.parametrize("lives", [[], [[(0.0, 1.0)] * 3], [[(0.0, 1.0)] * 30]])
def test_too_little_says_nothing(lives: list[list[tuple[float, float]]]) -> None:
    assert slope(lives) is None


def test_a_watch_leaves_out_the_warm_up_of_every_life() -> None:
    watch = Watch({"host": lambda: None}, warm_up_s=10)
    for life, start in ((1, 0), (2, 100)):
        watch.seen["host"][life] = [(float(start + t), 1e6 if t >= 10 else t * 1e5) for t in range(60)]
    found = watch.slope("host")
    assert found is not None
    assert (found.value, found.seconds) == (0.0, 98)
    assert watch.grows == []
    watch.look()
    assert watch.report() == ["  host                  1.0 MiB    +0.00 ± 0.00 MiB an hour, seen for 98 s"]
