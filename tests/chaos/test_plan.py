"""Which runs are done: a sample comes from the commit alone and stays within its budget."""

import hashlib

import pytest

from tests.chaos import __main__ as command
from tests.chaos.faults import STORES, all_faults
from tests.chaos.plan import plans_of, sample
from tests.chaos.schedule import chance_of

FAULTS = all_faults()
COMMITS = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(200)]


def _injects(fault):
    return not fault.has_own_run and any(fault.plan(chance_of(1), 300))


def test_a_sample_is_the_same_for_the_same_commit_and_within_its_budget():
    for commit in COMMITS[:20]:
        one, two = (sample(FAULTS.values(), commit, 240) for _ in range(2))
        assert [(plan.name, plan.seed) for plan in one] == [(plan.name, plan.seed) for plan in two]
        assert len(one) >= 3
        assert all(plan.seconds <= 60 for plan in one)
        assert sum(plan.estimate for plan in one) <= 240
        assert [plan.name for plan in one if _injects(plan.fault) and not plan.schedule()] == []


def test_every_fault_with_a_short_form_is_in_a_sample_sooner_or_later():
    found = {(plan.fault.name, plan.store) for commit in COMMITS for plan in sample(FAULTS.values(), commit, 240)}
    assert found == {(one.name, store) for one in FAULTS.values() if one.sample_seconds for store in one.stores}


def test_without_arguments_every_fault_is_tried_on_every_store_of_it():
    plans = plans_of(FAULTS.values(), STORES, None, 1)
    assert len(plans) == sum(len(one.stores) for one in FAULTS.values())
    assert [plan.name for plan in plans if _injects(plan.fault) and not plan.schedule()] == []


@pytest.mark.parametrize("words", [["--fault", "no-such-fault"], ["--store", "tape"], ["--defect", "no-such-defect"]])
def test_what_there_is_not_ends_with_2(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["chaos", *words])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert f"there is no {words[1]}" in capsys.readouterr().err


def test_the_list_names_every_fault(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["chaos", "--list"])
    assert command.main() == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(FAULTS)
