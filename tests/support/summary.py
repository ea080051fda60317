"""What pytest prints at the end of a run: tests passed per store, and the faulty receivers with the checks that caught them."""

import re
from collections import Counter

import pytest

MATRIX = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[MATRIX] = []
    config.addinivalue_line("markers", "case(*ids): the rows of the abuse and fault cases that a test tries")


def pytest_sessionfinish(session):
    """Hand what a process of several found to the one that reports."""
    if hasattr(session.config, "workeroutput"):
        found = [(name, sorted(named), sorted(caught)) for name, named, caught in session.config.stash[MATRIX]]
        session.config.workeroutput["matrix"] = found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take what a process of several found."""
    node.config.stash[MATRIX].extend(getattr(node, "workeroutput", {}).get("matrix", []))


def pytest_terminal_summary(terminalreporter, config):
    """Print how many tests each store passed, and which check of the conformance suite caught which faulty receiver, before pytest's own summary."""
    backends = Counter(
        re.search(r"\[([a-z]+)", report.nodeid)[1]
        for report in terminalreporter.stats.get("passed", ())
        if "stores/test_contract.py" in report.nodeid
    )
    if backends:
        terminalreporter.section("the behavioural suite of stores")
        terminalreporter.write_line(", ".join(f"{name}: {count} passed" for name, count in backends.items()))
    rows = config.stash[MATRIX]
    if rows:
        terminalreporter.section("faulty receivers, and the checks that caught them (* has to)")
        for name, named, found in rows:
            checks = [
                f"{check}{'*' * (check in named)}" for check in sorted(found, key=lambda id: (id not in named, id))
            ]
            more = f" and {len(checks) - 8} more" if len(checks) > 8 else ""
            terminalreporter.write_line(f"{name:48} {', '.join(checks[:8]) or 'NOTHING'}{more}")
