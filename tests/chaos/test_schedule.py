"""Schedules come from their seed alone, and are possible."""

import pytest

from tests.chaos.faults import all_faults
from tests.chaos.schedule import schedule_of

FAULTS = all_faults()
PAIRS = [(name, store) for name, fault in FAULTS.items() for store in fault.stores]


@pytest.mark.parametrize(("name", "store"), PAIRS)
def test_the_same_seed_gives_the_same_schedule(name, store):
    one, two = (schedule_of(FAULTS[name], store, 60, 7) for _ in range(2))
    assert one == two
    other = schedule_of(FAULTS[name], store, 60, 8)
    assert other != one or not one


@pytest.mark.parametrize(("name", "store"), PAIRS)
def test_steps_come_in_order_and_within_the_run(name, store):
    for seed in range(20):
        steps = schedule_of(FAULTS[name], store, 30, seed)
        assert steps == sorted(steps, key=lambda step: step.at)
        assert all(step.at >= 0 and step.at + step.lasts <= 30 and 0 <= step.chance < 1 for step in steps)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_says_what_it_injects_and_what_is_guaranteed(name):
    assert FAULTS[name].injects
    assert FAULTS[name].guarantees.endswith(".")
    assert FAULTS[name].stores


def test_every_store_has_its_own_schedule():
    assert schedule_of(FAULTS["worker-kill"], "sqlite", 60, 7) != schedule_of(FAULTS["worker-kill"], "file", 60, 7)
