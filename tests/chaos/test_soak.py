"""The soak's own proof: a slope is found where there is one, and a receiver that keeps what it should let go is found."""

import random

import pytest

from tests.chaos.soak import Soak, soak
from tests.chaos.soaking.picture import page
from tests.chaos.soaking.slopes import slope_of

pytestmark = pytest.mark.slow


def walk(chance, start, steps, drift=0.0):
    """Return values that wander about ``start``, each like the one before, and drift."""
    values, wander = [], 0.0
    for step in range(steps):
        wander = 0.9 * wander + chance.gauss(0, start / 500)
        values.append(start + wander + drift * step)
    return values


def test_a_slope_is_found_and_chance_and_peaks_are_not_taken_for_one():
    times = [float(second) for second in range(0, 600, 3)]
    grown = [slope_of(times, walk(random.Random(seed), 1e8, 200, drift=1e5)) for seed in range(50)]
    flat = [slope_of(times, walk(random.Random(seed), 1e8, 200)) for seed in range(50)]
    assert all(one.is_growth(0.05) for one in grown)
    assert not any(one.is_growth(0.05) for one in flat)
    assert sum(one.least > 0 for one in flat) <= 8  # 2.5 % by its definition, were the blocks independent
    peaks = [value + (5e8 if number % 9 == 0 else 0) for number, value in enumerate(walk(random.Random(1), 1e8, 200))]
    assert not slope_of(times, peaks).is_growth(0.05)
    assert slope_of(times, [2.0 * at + 10 for at in times]).per_hour == pytest.approx(7200)
    assert slope_of(times, [0.0] * len(times)).growth == 0


@pytest.mark.case("G20")
def test_half_a_minute_of_good_and_hostile_traffic_leaves_nothing_behind(tmp_path):
    found = soak(Soak("sqlite", 30), tmp_path)
    assert found["failures"] == []
    assert found["good"] > 200
    assert "<svg" in page(found)


@pytest.mark.case("G20")
def test_a_receiver_that_keeps_memory_descriptors_and_threads_is_found(tmp_path):
    found = soak(Soak("sqlite", 25, ("tests.support.hoarding_receiver",)), tmp_path)
    grown = {name for name, slope in found["slopes"].items() if slope["fails"]}
    assert {"rss", "descriptors", "threads"} <= grown
