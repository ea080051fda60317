"""Real runs, as short as they can be: one that finds nothing, one that finds a defect, and their reports."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import pytest

from tests.chaos.defects import all_defects
from tests.chaos.faults import all_faults
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


def chaos(folder, *words):
    command = [sys.executable, "-m", "tests.chaos", *words, "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    return done, json.loads((folder / "chaos.json").read_text())


class Outside(HTMLParser):
    """Collects what a page would fetch from elsewhere."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]


def test_killed_workers_lose_nothing_and_the_report_tells_of_it(tmp_path):
    done, (found,) = chaos(tmp_path, "--fault=worker-kill", "--store=sqlite", "--seconds=4", "--seed=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["acknowledged states"] > 20
    assert found["faults"] >= 2
    assert found["lost"] == found["stale"] == found["other findings"] == 0
    assert sum(found["timeline"]["answered"]) + found["failed"] > 20
    assert len(found["schedule"]) == found["faults"]
    assert f"| worker-kill | sqlite  | {found['seconds']}" in done.stdout
    page = (tmp_path / "chaos.html").read_text()
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert page.count("<svg") == 1
    assert "SEED=1" in page


def test_a_defect_is_found(tmp_path):
    done, (found,) = chaos(
        tmp_path, "--defect=old-snapshot", "--fault=none", "--store=sqlite", "--seconds=4", "--seed=1"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert {one["check"] for one in found["findings"]} <= {"lost", "stale", "resurrected"}
    assert "DEFECT=old-snapshot" in done.stdout


def test_each_defect_says_with_what_it_is_found():
    faults = all_faults()
    for one in all_defects().values():
        assert one.store in faults[one.fault].stores
        assert one.text
        assert one.checks


def test_each_defect_can_still_be_put_in():
    """Each in a process of its own: what it patches may have moved."""
    script = "import sys; from tests.chaos.defects import all_defects; all_defects()[sys.argv[1]].plant()"
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(
            lambda name: subprocess.run(
                [sys.executable, "-c", script, name], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
            ),
            all_defects(),
        )
        assert [one.stderr for one in done if one.returncode] == []
