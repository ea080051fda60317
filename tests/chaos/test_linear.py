"""Single keys are linearizable under save, load and delete, on each store, while workers are killed; and the judge is one."""

import copy
import os
import subprocess

import pytest

from tests.chaos.faults import STORES
from tests.chaos.linear.contest import contest
from tests.chaos.linear.judging import FOLDER, judge
from tests.chaos.linear.recording import History
from tests.support.servers import needed

pytestmark = pytest.mark.slow

OPERATIONS = 10_000 if "CHAOS" in os.environ else 1000


def judged(lines, folder):
    History("", lines=lines).write(folder / "tried.jsonl")
    return judge(folder / "tried.jsonl")


def test_the_judge_finds_stale_lost_and_resurrected_states_and_nothing_in_good_histories():
    needed("go")
    done = subprocess.run(["go", "test", "."], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.case("F02", "G01")
@pytest.mark.parametrize("store", STORES)
def test_single_keys_are_linearizable_while_workers_are_killed(store, tmp_path):
    needed("go", *(["mariadbd"] if store == "mariadb" else []))
    found = contest(store, tmp_path, OPERATIONS, seed=1, kill_every=0.5)
    print(found)
    assert found.holds, str(found)
    assert found.verdict.operations >= OPERATIONS
    assert found.killed > 1


def test_a_recorded_history_of_which_one_answer_is_changed_is_found_and_drawn(tmp_path):
    """One load among a thousand operations answers what was stored before: stale, or lost, or resurrected."""
    needed("go")
    found = contest("sqlite", tmp_path, 600, seed=2)
    assert found.holds, str(found)
    lines = sorted(found.history.lines, key=lambda line: line["call"])
    loads = [number for number, line in enumerate(lines) if line["kind"] == "load" and line["return"]]
    last = loads[-1]
    before = {lines[n]["found"] for n in loads[:-30] if lines[n]["key"] == lines[last]["key"]}
    for content in (min(before - {None, lines[last]["found"]}), "never saved"):
        changed = copy.deepcopy(lines)
        changed[last]["found"] = content
        verdict = judged(changed, tmp_path)
        assert verdict.verdict == "Illegal"
        assert "<html" in (tmp_path / verdict.pages[0]).read_text()
