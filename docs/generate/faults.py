"""Faults: what each is, what people see of it, and the figures of its last run.

Both come from tests/chaos/results/chaos.json, which ``python -m tests.chaos.keep`` writes: the harness itself needs
drivers that the site is built without.
"""

import json
from collections.abc import Iterable

from docs.generate.markdown import described, exactly, plain, table
from docs.generate.sources import ROOT

FAULTS = described("faults", "faults")
RESULTS = ROOT / "tests/chaos/results/chaos.json"
_STORES = {"sqlite": "SQLite", "file": "files", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}
_FIGURES = (
    *("seconds", "faults", "acknowledged states", "lost", "stale", "other findings"),
    *("longest without a save, s", "longest request, s", "recovery, s"),
)
_SUMMED = ("acknowledged states", "faults", "lost", "stale")
_PARTS = {"client": "The platform sees", "operator": "You see", "not": "Not guaranteed"}


def results() -> dict:
    """Return the machine, the faults by name, and the figures of runs."""
    return json.loads(RESULTS.read_text())


def kept() -> list[dict]:
    """Return the figures of the kept runs, those of one fault together."""
    order = list(results()["faults"])
    return sorted(results()["runs"], key=lambda run: (order.index(run["fault"]), list(_STORES).index(run["store"])))


def sections() -> str:
    """Return a section for each fault; raises LookupError when one is not described."""
    faults = results()["faults"]
    exactly(FAULTS, faults, "FAULTS of faults")
    runs = kept()
    return f"On {results()['machine']}.\n\n" + "\n\n".join(
        _section(name, one, [run for run in runs if run["fault"] == name]) for name, one in faults.items()
    )


def totals() -> str:
    """Return the table of faults and what all their runs found, a row for each fault."""
    runs = kept()
    rows = []
    for name, one in results()["faults"].items():
        own = [run for run in runs if run["fault"] == name]
        stores = ", ".join(_STORES[run["store"]] for run in own)
        rows.append(
            (f"[{name}](../reference/faults.md#{name})", plain(one["injects"]), stores or "not run", *_sums(own))
        )
    rows.append(("**all**", "", "", *_sums(runs)))
    return table(("fault", "what is injected", "stores", *_SUMMED), rows)


def _sums(runs: list[dict]) -> list[str]:
    return [f"{sum(run[key] for run in runs):,}" for key in _SUMMED]


def _section(name: str, one: dict, runs: Iterable[dict]) -> str:
    told = FAULTS[name]
    lines = [f"- **Injected**: {plain(one['injects'])}.", f"- **Guaranteed**: {plain(one['guarantees'])}"]
    lines += [f"- **{heading}**: {told[part]}" for part, heading in _PARTS.items() if part in told]
    lines += [f"- **Try it**: `make chaos FAULT={name}`"]
    text = f"### {name}\n\n" + "\n".join(lines)
    rows = [(_STORES[run["store"]], *(_shown(run[key]) for key in _FIGURES)) for run in runs]
    return f"{text}\n\n{table(('store', *_FIGURES), rows)}" if rows else text


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"
