"""The bench works: its arithmetic, and a quick run. Nothing here says how fast anything is."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.bench import cells, figures
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


def test_figures():
    assert figures.percentile([4, 1, 3, 2], 0.5) == 2
    assert figures.percentile([4, 1, 3, 2], 0.99) == 4
    assert figures.percentile(list(range(1, 101)), 0.9) == 90
    assert figures.percentile([7], 0.01) == 7
    assert figures.spread([5, 1, 3]) == {"median": 3, "min": 1, "max": 5}
    # Round by round: of the medians alone it would be 3.
    assert figures.ratios([2, 6, 12], [1, 6, 2]) == {"median": 2, "min": 1, "max": 6}
    assert figures.slope([(1, 3), (2, 5), (3, 7)]) == pytest.approx(2)


def test_ratios_of_a_cell():
    def figures_of(cpu: float, rate: float) -> dict[str, float]:
        return {"cpu": cpu, "requests_per_second": rate}

    rounds = [
        {"sqlite": figures_of(4, 30), "floor": figures_of(2, 90), "plain": figures_of(8, 10)},
        {"sqlite": figures_of(2, 20), "floor": figures_of(2, 90), "plain": figures_of(8, 20)},
        {"sqlite": figures_of(5, 40), "floor": figures_of(3, 90), "plain": figures_of(6, 20)},
    ]
    servers = cells.summarise({"call": "GET", "size": "7 KB", "rounds": rounds})["servers"]
    assert servers["sqlite"]["cpu"] == {"median": 4, "min": 2, "max": 5}
    assert servers["sqlite"]["efficiency"] == {"median": 0.6, "min": 0.5, "max": 1}
    assert servers["sqlite"]["to_plain"] == {"median": 2, "min": 1, "max": 3}
    assert servers["plain"]["efficiency"] == {"median": 0.25, "min": 0.25, "max": 0.5}
    assert "efficiency" not in servers["floor"]
    assert "to_plain" not in servers["plain"]


def test_a_quick_run(tmp_path):
    command = [sys.executable, "-m", "tests.bench", "--quick", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "bench.json").read_text())
    assert [(cell["call"], cell["size"]) for cell in result["cells"]] == [
        (call, "7 KB") for call in ("GET", "POST", "DELETE", "mixed")
    ]
    for cell in result["cells"]:
        assert list(cell["servers"]) == ["sqlite", "floor", "plain"]
        for figures_of in cell["servers"].values():
            assert figures_of["cpu"]["median"] > 0
            assert figures_of["p50"]["median"] <= figures_of["p99"]["median"]
    told = (tmp_path / "bench.md").read_text()
    assert result["machine"]["processor"] in told
    assert result["machine"]["elliptic curves by"] in told
    assert "not measured" in told
    assert ET.parse(tmp_path / "efficiency.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert str(tmp_path) not in told + (tmp_path / "bench.json").read_text()
