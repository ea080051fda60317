"""What a run found: the table for the terminal, and the JSON from which everything else is made."""

from collections.abc import Sequence

from tabulate import tabulate

from tests.chaos import timeline
from tests.chaos.checks import CHECKS
from tests.chaos.run import Result

HEADERS = (
    *("fault", "store", "seconds", "operations", "acknowledged states", "faults", "failed", "lost", "stale"),
    *("other findings", "longest without a save, s", "longest request, s", "recovery, s"),
)


def as_json(result: Result) -> dict:
    """Return the figures of ``result``; times are seconds since the load began."""
    evidence, plan = result.evidence, result.plan
    return {
        **plan.as_json(),
        "planned": plan.seconds,
        "seconds": round(evidence.ended - evidence.began, 1),
        "took": round(result.took, 1),
        "operations": evidence.count,
        "acknowledged states": evidence.acknowledged_states,
        "faults": len(evidence.windows),
        "failed": evidence.failed,
        "failed by place": dict(evidence.failed_by_place),
        "lost": result.count("lost"),
        "stale": result.count("stale"),
        "other findings": len(result.findings) - result.count("lost") - result.count("stale"),
        "longest without a save, s": round(evidence.longest_pause, 2),
        "longest request, s": round(evidence.longest_request, 2),
        "recovery, s": None if evidence.recovery is None else round(evidence.recovery, 2),
        "statuses": evidence.status_counts,
        "findings": _listed(result.findings, evidence.began),
        "excused": _listed(result.excused, evidence.began),
        "schedule": [step.as_json() for step in plan.schedule()],
        "timeline": timeline.buckets(evidence),
    }


def _listed(findings, began: float) -> list[dict]:
    return [
        {"check": one.check, "promise": CHECKS[one.check].promise, "at": _since(one.at, began), "text": one.text}
        for one in findings
    ]


def _since(at: float, began: float) -> float | None:
    return None if at == float("inf") else round(at - began, 3)


def cells(one: dict) -> list[str]:
    """Return the cells of a run's row, as text."""
    values = (one[name] for name in HEADERS)
    return ["–" if value is None else f"{value:,}" if isinstance(value, int) else str(value) for value in values]


def table(found: Sequence[dict]) -> str:
    """Return the table of the runs ``found`` (as_json)."""
    return tabulate([cells(one) for one in found], HEADERS, tablefmt="github", disable_numparse=True)


def told(found: dict, most: int = 20) -> list[str]:
    """Return lines about a run: what was found, and how to do it again."""
    count = len(found["findings"])
    verdict = f"{count} findings, {command_of(found)}" if count else "no findings"
    lines = [f"{found['fault']} on {found['store']}: {verdict}"]
    lines += [f"  {one['check']}, at {one['at']}: {one['text']}" for one in found["findings"][:most]]
    return [*lines, f"  … and {count - most} more"] if count > most else lines


def command_of(found: dict) -> str:
    """Return the command that does the run again."""
    words = (
        f"make chaos FAULT={found['fault']} STORE={found['store']} SECONDS={found['seconds']:.0f} SEED={found['seed']}"
    )
    return f"{words} DEFECT={found['defect']}" if found["defect"] else words
