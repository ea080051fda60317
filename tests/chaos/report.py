"""What a run found: the table for the terminal, and the JSON from which everything else is made."""

from collections.abc import Sequence

from tabulate import tabulate

from tests.chaos.run import Result

HEADERS = (
    *("fault", "store", "seconds", "operations", "acknowledged states", "faults", "failed", "lost", "stale"),
    *("other findings", "longest without a save, s", "longest request, s", "recovery, s"),
)


def as_json(result: Result) -> dict:
    """Return the figures of ``result``; times are seconds since the load began."""
    evidence, plan = result.evidence, result.plan
    counted = ("lost", "stale")
    return {
        "fault": plan.fault.name,
        "store": plan.store,
        "seed": plan.seed,
        "defect": plan.defect,
        "injects": plan.fault.injects,
        "guarantees": plan.fault.guarantees,
        "seconds": round(evidence.ended - evidence.began, 1),
        "took": round(result.took, 1),
        "operations": len(evidence.operations),
        "acknowledged states": evidence.acknowledged_states,
        "faults": len(evidence.windows),
        "failed": evidence.failed,
        "lost": result.count("lost"),
        "stale": result.count("stale"),
        "other findings": sum(1 for one in result.findings if one.check not in counted),
        "longest without a save, s": round(evidence.longest_pause, 2),
        "longest request, s": round(evidence.longest_request, 2),
        "recovery, s": None if evidence.recovery is None else round(evidence.recovery, 2),
        "findings": [
            {"check": one.check, "at": _since(one.at, evidence.began), "text": one.text} for one in result.findings
        ],
        "schedule": [step.as_json() for step in plan.schedule()],
    }


def _since(at: float, began: float) -> float | None:
    return None if at == float("inf") else round(at - began, 3)


def table(found: Sequence[dict]) -> str:
    """Return the table of runs (as_json)."""
    rows = [[one[name] if one[name] is not None else "–" for name in HEADERS] for one in found]
    return tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True)


def told(found: dict, most: int = 20) -> list[str]:
    """Return lines about the findings of a run."""
    lines = [f"  {one['check']}, at {one['at']}: {one['text']}" for one in found["findings"][:most]]
    more = len(found["findings"]) - most
    return [*lines, f"  … and {more} more"] if more > 0 else lines
