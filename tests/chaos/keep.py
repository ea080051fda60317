"""``python -m tests.chaos.keep chaos.json …``: keeps the figures of runs for the manual, in tests/chaos/results.

A run replaces the kept one of the same fault and store. ``make reference`` then writes the page of faults anew.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.bench import machine
from tests.chaos.faults import all_faults

KEPT = Path(__file__).with_name("results") / "chaos.json"
_LEFT_OUT = {"schedule", "findings", "excused", "injects", "guarantees", "timeline", "statuses", "failed by place"}


def kept_with(kept: Iterable[dict], runs: Iterable[dict]) -> list[dict]:
    """Return ``kept`` with ``runs``, of which the later ones replace those of the same fault and store."""
    found = {(run["fault"], run["store"]): run for run in kept}
    for run in runs:
        if run["defect"]:
            raise ValueError(
                f"{run['fault']} on {run['store']} had the defect {run['defect']}: no figure for the manual"
            )
        found[run["fault"], run["store"]] = {name: value for name, value in run.items() if name not in _LEFT_OUT}
    return [found[key] for key in sorted(found)]


def described() -> dict[str, dict]:
    """Return what each fault injects and what is guaranteed, by its name."""
    return {
        name: {"injects": one.injects, "guarantees": one.guarantees, "stores": list(one.stores)}
        for name, one in all_faults().items()
    }


def main(names: list[str]) -> None:
    """Keep the runs in the files ``names``."""
    kept = json.loads(KEPT.read_text())["runs"] if KEPT.exists() else []
    for name in names:
        kept = kept_with(kept, json.loads(Path(name).read_text()))
    KEPT.parent.mkdir(exist_ok=True)
    found = {"machine": machine.line(machine.describe()), "faults": described(), "runs": kept}
    KEPT.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{KEPT.name}: {len(kept)} runs")


if __name__ == "__main__":
    main(sys.argv[1:])
