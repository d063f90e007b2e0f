"""Whether memory grows: a slope, and how sure it is."""

import math
import random

import pytest

from tests.endurance.resident import PART_S, SPARE_BYTES, Life, Slope, Watch, slope

HOUR_S = 3600
MINUTES_10 = 600
#: What one has in RAM comes by the page.
PAGE_BYTES = 4096


def seen(leak_bytes_per_s: float, *, pieces_at: tuple[int, ...] = (), seed: int = 1) -> Life:
    """Return ten minutes of a program: now and then a peak, some pieces of the allocator, garbage that is collected."""
    chance = random.Random(seed)
    life = []
    garbage = 0.0
    for second in range(MINUTES_10):
        garbage = 0.0 if chance.random() < 0.1 else garbage + chance.uniform(0, 8192)
        peak = chance.uniform(0, 2e6) if chance.random() < 0.2 else 0.0
        pieces = sum(131072 for each in pieces_at if second >= each)
        size = 45e6 + leak_bytes_per_s * second + garbage + peak + pieces
        life.append((second + chance.uniform(0, 0.01), size // PAGE_BYTES * PAGE_BYTES))
    return life


def found_in(*lives: Life, part_s: float = PART_S) -> Slope:
    found = slope(lives, part_s)
    assert found is not None
    return found


def test_lives_of_different_levels_have_one_slope() -> None:
    lives = [
        [(float(t), level + 100.0 * t) for t in range(start, start + 50)] for start, level in ((0, 5e6), (70, 9e5))
    ]
    found = found_in(*lives, part_s=10)
    assert found.value == pytest.approx(100.0)
    assert found.margin == pytest.approx(0.0, abs=1e-6)
    assert found.seconds == 80


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pieces_at", [(), (300,), (10, 200, 580)])
def test_peaks_garbage_and_pieces_of_the_allocator_are_no_growth(pieces_at: tuple[int, ...], seed: int) -> None:
    found = found_in(seen(0.0, pieces_at=pieces_at, seed=seed))
    assert abs(found.value) <= found.margin
    assert not found.grows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pieces_at", [(), (300,)])
@pytest.mark.parametrize(
    "leak_bytes_per_s",
    [
        pytest.param(64 * 50, id="64 bytes of each of 50 requests a second"),
        pytest.param(2048 * 1.0, id="2 KiB of a connection each second"),
    ],
)
def test_a_leak_is_found_among_them_in_ten_minutes(
    leak_bytes_per_s: float, pieces_at: tuple[int, ...], seed: int
) -> None:
    found = found_in(seen(leak_bytes_per_s, pieces_at=pieces_at, seed=seed))
    assert found.value == pytest.approx(leak_bytes_per_s, rel=0.5)
    assert found.grows


def test_one_step_is_no_slope_however_high_and_a_stair_is() -> None:
    """Of 600 looks at a level that rises once a line would be sure; of levels that rise in each part, rightly."""
    once = [(float(t), 8e6 if t > MINUTES_10 / 2 else 4e6) for t in range(MINUTES_10)]
    assert not found_in(once).grows
    stair = [(float(t), 4e6 + 1e6 * (t // PART_S)) for t in range(MINUTES_10)]
    assert found_in(stair).grows


def test_growth_that_allocators_round_to_is_none() -> None:
    assert not Slope(SPARE_BYTES / HOUR_S * 0.9, 0.0, HOUR_S).grows
    assert Slope(SPARE_BYTES / HOUR_S * 1.1, 0.0, HOUR_S).grows


def test_what_sinks_does_not_grow() -> None:
    assert not found_in(seen(-3200.0)).grows


@pytest.mark.parametrize("lives", [[], [[]], [[(0.0, 1.0)] * 3], [[(0.0, 1.0)] * 30], [[(0.0, 1.0), (400.0, 1.0)]]])
def test_too_little_says_nothing(lives: list[list[tuple[float, float]]]) -> None:
    assert slope(lives) is None


def test_a_part_without_a_look_counts_for_nothing() -> None:
    """A stopped process may be gone for longer than a part."""
    life = [(float(t), 5e6) for t in range(MINUTES_10) if not 100 < t < 200]
    found = found_in(life, part_s=30)
    assert (found.value, found.margin) == (0.0, 0.0)
    assert not math.isnan(found.seconds)


def test_a_watch_leaves_out_the_warm_up_of_every_life() -> None:
    watch = Watch({"host": lambda: None}, warm_up_s=10)
    for life, start in ((1, 0), (2, 200)):
        watch.seen["host"][life] = [(float(start + t), 1e6 if t >= 10 else t * 1e5) for t in range(130)]
    found = watch.slope("host")
    assert found is not None
    assert (found.value, found.seconds) == (0.0, 180)
    assert watch.grows == []
    watch.look()
    assert watch.report() == ["  host                  1.0 MiB    +0.00 MiB an hour, +0.00 to +0.00, seen for 180 s"]
