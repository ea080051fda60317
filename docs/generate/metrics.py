"""The metrics: of requests from their declared table, of the receiver from what a scrape yields."""

import re

from docs.generate.markdown import described, exactly, plain, table
from docs.generate.package import called, calls_in, texts
from docs.generate.sources import ALERTS, PACKAGE, metrics

REQUESTS = described("metrics", "requests")
RECEIVER = described("metrics", "receiver")
_COUNTS = ("CounterMetricFamily",)


def names() -> list[str]:
    """Return the full name of every metric, as a scrape shows it (of a histogram, without _bucket, _sum, _count)."""
    named = [f"receiver_{one.name}{'_total' if one.kind == 'Counter' else ''}" for one in metrics.DECLARED.values()]
    return named + [_full(name, kind) for name, kind, _ in _figures()]


def of_requests() -> str:
    """Return the table of what workers count; raises LookupError when one is not described."""
    exactly(REQUESTS, metrics.DECLARED, "REQUESTS of metrics")
    rows = []
    for key, one in metrics.DECLARED.items():
        name = f"receiver_{one.name}{'_total' if one.kind == 'Counter' else ''}"
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append((f"`{name}`", one.kind.lower(), labels, plain(f"{one.help} {REQUESTS[key]}") + _alerts(name)))
    return table(("metric", "kind", "labels", "meaning"), rows)


def of_the_receiver() -> str:
    """Return the table of what is looked up at each scrape; raises LookupError when one is not described."""
    exactly(RECEIVER, (name for name, _, _ in _figures()), "RECEIVER of metrics")
    rows = []
    for name, kind, help in _figures():
        labels = ", ".join(f"`{label}`" for label in RECEIVER[name]["labels"])
        full = _full(name, kind)
        rows.append((f"`{full}`", kind, labels, plain(f"{help} {RECEIVER[name]['meaning']}") + _alerts(full)))
    return table(("metric", "kind", "labels", "meaning"), rows)


def _full(name: str, kind: str) -> str:
    return f"receiver_{name}{'_total' if kind == 'counter' else ''}"


def _figures() -> list[tuple[str, str, str]]:
    """Return name, kind and help of what the admin listener adds at a scrape."""
    found = []
    for call in calls_in(PACKAGE / "admin"):
        if called(call) in ("_gauge", *_COUNTS) and len(named := texts(call)) == 2:
            kind = "counter" if called(call) in _COUNTS else "gauge"
            found.append((named[0].removeprefix("receiver_"), kind, named[1]))
    return sorted(found, key=lambda one: list(RECEIVER).index(one[0]) if one[0] in RECEIVER else -1)


def _alerts(name: str) -> str:
    """Return a sentence that names the alert rules of deploy/monitoring which use the metric ``name``, if any do."""
    rules = re.split(r"^ *- alert: ", ALERTS.read_text(), flags=re.MULTILINE)[1:]
    uses = re.compile(rf"\b{name}(_bucket|_sum|_count)?\b")
    found = [f"`{rule.split()[0]}`" for rule in rules if uses.search(rule.partition("annotations:")[0])]
    return f" **Alerts**: {', '.join(found)}." if found else ""
