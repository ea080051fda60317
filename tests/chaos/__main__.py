"""``python -m tests.chaos``: injects faults under load and checks every promise. ``make chaos`` runs it.

Exit status: 0 without findings, 1 with findings, 2 when the run itself could not be done.
"""

import argparse
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos import report
from tests.chaos.faults import FILE, STORES, all_faults
from tests.chaos.run import Plan, run


def main() -> int:
    options = _options()
    faults = all_faults()
    if options.list:
        for one in faults.values():
            print(f"{one.name:24} {', '.join(one.stores):34} {one.injects}")
        return 0
    chosen = options.fault.split(",") if options.fault else list(faults)
    unknown = [name for name in chosen if name not in faults]
    if unknown:
        print(f"there is no fault {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    stores = options.store.replace("files", FILE).split(",") if options.store else STORES
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    plans = [
        Plan(faults[name], store, options.seconds or faults[name].seconds, seed, options.defect)
        for name in chosen
        for store in stores
        if store in faults[name].stores
    ]
    print(
        f"seed {seed}: {len(plans)} runs, about {sum(one.seconds + 20 for one in plans) / 60:.0f} minutes", flush=True
    )
    folder = Path(options.out or tempfile.mkdtemp(prefix="chaos-"))
    return _run_all(plans, folder)


def _run_all(plans, folder: Path) -> int:
    found, status = [], 0
    for plan in plans:
        own = folder / f"{plan.fault.name}-{plan.store}-{int(time.time())}"
        own.mkdir(parents=True)
        try:
            result = plan.fault.own_run(plan, own) or report.as_json(run(plan, own))
        except Exception as failure:
            print(f"{plan.fault.name} on {plan.store}: {type(failure).__name__}: {failure}", file=sys.stderr)
            status = 2
            continue
        found.append(result)
        print(f"{plan.fault.name} on {plan.store}: {len(result['findings'])} findings", *report.told(result), sep="\n")
        status = max(status, 1 if result["findings"] else 0)
    print(report.table(found))
    (folder / "chaos.json").write_text(json.dumps(found, indent=1))
    print(f"report: {folder}/chaos.json")
    return status


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the faults")
    parser.add_argument("--fault", help="only these, separated by commas")
    parser.add_argument("--store", help=f"only these of {', '.join(STORES)}")
    parser.add_argument("--seconds", type=float, help="of each run")
    parser.add_argument("--seed", type=int, help="that of an earlier run, to repeat its schedule")
    parser.add_argument("--defect", default="", help="start the receivers with this seeded defect")
    parser.add_argument("--out", help="folder for the report")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
