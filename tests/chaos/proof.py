"""``python -m tests.chaos.proof [DEFECT …]``: shows that the harness finds defects. ``make chaos-proof`` runs it.

Each defect of tests/chaos/defects is put into the receiver under test on purpose, and the run that it names must find
it by one of the checks that it names. Exit status: 0 when each was found, 1 when not, 2 when a run could not be done.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from tests.chaos.defects import Defect, all_defects
from tests.chaos.faults import all_faults
from tests.chaos.plan import Plan
from tests.chaos.run import run

HEADERS = ("defect", "what is wrong", "fault", "store", "seed", "seconds", "found by", "findings", "what it saw first")


def main(names: list[str]) -> int:
    """Prove the defects ``names``, all without any; print the table and return the exit status."""
    defects = all_defects()
    if unknown := [name for name in names if name not in defects]:
        print(f"there is no defect {', '.join(unknown)}: {', '.join(defects)}", file=sys.stderr)
        return 2
    rows, status = [], 0
    with tempfile.TemporaryDirectory(prefix="chaos-proof-") as folder:
        for name in names or defects:
            row = proven(defects[name], Path(folder) / name)
            print(f"{name}: {row['found by'] or 'NOT FOUND'} {row['what it saw first']}", flush=True)
            status = status if row["found by"] else 1
            rows.append(row)
    print(
        tabulate([[row[name] for name in HEADERS] for row in rows], HEADERS, tablefmt="github", disable_numparse=True)
    )
    print(json.dumps(rows))
    return status


def proven(defect: Defect, folder: Path) -> dict:
    """Return what the run of ``defect`` found first, by one of its checks; "found by" is empty if that is nothing."""
    folder.mkdir()
    began = time.monotonic()
    plan = Plan(all_faults()[defect.fault], defect.store, defect.seconds, defect.seed, defect.name)
    seen = _seen(plan, folder)
    found = [(check, text) for check, text in seen if check in defect.checks]
    row = {"defect": defect.name, "what is wrong": defect.text, "fault": defect.fault, "store": defect.store}
    row |= {"seed": defect.seed, "seconds": round(time.monotonic() - began), "findings": len(found)}
    return row | {
        "found by": found[0][0] if found else "",
        "what it saw first": found[0][1] if found else f"only {sorted({check for check, _ in seen})}",
    }


def _seen(plan: Plan, folder: Path) -> list[tuple[str, str]]:
    """Do the run; return (check, text) of each finding."""
    own = plan.fault.own_run(plan, folder)
    if own is not None:
        return [(one["check"], one["text"]) for one in own["findings"]]
    return [(one.check, one.text) for one in run(plan, folder).findings]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
