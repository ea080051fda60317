"""``python -m tests.chaos``: injects faults under load and checks every promise. ``make chaos`` runs it.

Exit status: 0 without findings, 1 with findings, 2 when a run could not be done.
"""

import argparse
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos import report
from tests.chaos.defects import all_defects
from tests.chaos.faults import FILE, STORES, all_faults
from tests.chaos.page import page
from tests.chaos.plan import Plan, plans_of, sample
from tests.chaos.run import run


class _OutOfTime(BaseException):
    """No Exception, so that nothing takes it for a fault of a run."""


_GRACE = 30  # seconds beyond its budget after which a sample is given up


def main() -> int:
    options = _options()
    faults = all_faults()
    if options.list:
        for one in faults.values():
            print(f"{one.name:24} {', '.join(one.stores):34} {one.injects}")
        return 0
    plans = _chosen(options, faults)
    known = "" if options.sample else f"seed {plans[0].seed}: "
    total = sum(plan.estimate for plan in plans)
    print(f"{known}{len(plans)} runs, about {total / 60:.0f} minutes", flush=True)
    for plan in plans if len(plans) > 1 else ():
        faults = "" if plan.fault.has_own_run else f", {len(plan.schedule())} faults"
        print(f"  {plan.name}, {plan.seconds:g} s{faults}", flush=True)
    folder = Path(options.out or tempfile.mkdtemp(prefix="chaos-"))
    try:
        with _limit(options.budget):
            return _run_all(plans, folder, options.budget)
    except _OutOfTime:
        print(f"given up: the budget is {options.budget:g} seconds", file=sys.stderr)
        return 2


def _chosen(options: argparse.Namespace, faults) -> list[Plan]:
    if options.sample:
        return sample(faults.values(), options.sample, options.budget or 240)
    names = options.fault.split(",") if options.fault else list(faults)
    stores = options.store.replace("files", FILE).split(",") if options.store else STORES
    wrong = [name for name in names if name not in faults] + [name for name in stores if name not in STORES]
    wrong += [options.defect] if options.defect and options.defect not in all_defects() else []
    if wrong:
        print(f"there is no {', '.join(wrong)}; --list names the faults", file=sys.stderr)
        sys.exit(2)
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    return plans_of([faults[name] for name in names], stores, options.seconds, seed, options.defect)


@contextlib.contextmanager
def _limit(budget: float | None) -> Iterator[None]:
    """Raise _OutOfTime in the main thread some time after ``budget`` seconds."""

    def give_up(*_):
        raise _OutOfTime

    if budget:
        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, budget + _GRACE)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _run_all(plans: Sequence[Plan], folder: Path, budget: float | None) -> int:
    """Do ``plans`` within ``budget`` seconds; write the reports; return the exit status."""
    began, found, status = time.monotonic(), [], 0
    for number, plan in enumerate(plans):
        if budget and time.monotonic() - began + plan.estimate > budget:
            print(f"{plan.name}: left out, the budget of {budget:g} s is nearly used up", flush=True)
            continue
        result = _one(plan, folder / f"{number:03}-{plan.fault.name}-{plan.store}")
        if result is None:
            status = 2
            continue
        if result:
            found.append(result)
            print(*report.told(result), sep="\n", flush=True)
            status = max(status, 1 if result["findings"] else 0)
            _write(found, folder)
    print(report.table(found), f"report: {folder}/chaos.html", sep="\n")
    return status


def _one(plan: Plan, folder: Path) -> dict | None:
    """Do one run; return what it found, {} when this machine cannot do it, None when it failed."""
    if missing := plan.missing():
        print(f"{plan.name}: not installed: {', '.join(missing)}", file=sys.stderr, flush=True)
        return None if os.environ.get("CI") else {}
    folder.mkdir(parents=True)
    try:
        return plan.fault.own_run(plan, folder) or report.as_json(run(plan, folder))
    except Exception as failure:
        print(f"{plan.name}: {type(failure).__name__}: {failure}", file=sys.stderr, flush=True)
        return None


def _write(found: list[dict], folder: Path) -> None:
    (folder / "chaos.json").write_text(json.dumps(found, indent=1, ensure_ascii=False), "utf-8")
    (folder / "chaos.html").write_text(page(found), "utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the faults")
    parser.add_argument("--fault", help="only these, separated by commas")
    parser.add_argument("--store", help=f"only these of {', '.join(STORES)}")
    parser.add_argument("--seconds", type=float, help="of each run")
    parser.add_argument("--seed", type=int, help="that of an earlier run, to repeat its schedule")
    parser.add_argument("--defect", default="", help="start the receivers with this seeded defect")
    parser.add_argument("--sample", metavar="COMMIT", help="short runs that this hash picks, within --budget")
    parser.add_argument("--budget", type=float, help="seconds for all runs; what does not fit is left out")
    parser.add_argument("--out", help="folder for the report")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
