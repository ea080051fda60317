"""A receiver with an admin listener, and what it exports."""

import contextlib
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from receiver.admin.client import AdminClient
from receiver.commands.demo import running_receiver


@contextlib.contextmanager
def serving(keys, folder, **environment):
    """Run a receiver with an admin listener; yields it."""
    environment = {"STORAGE_ADMIN_BIND": "127.0.0.1:0", "STORAGE_RUN_DIR": str(folder), **environment}
    with open(folder / "log", "a") as log, running_receiver(keys, folder, log, **environment) as running:
        yield running


def readyz(running) -> tuple[int, dict]:
    return AdminClient(running.admin).get_json("/readyz")


def counted(running) -> dict[tuple, float]:
    """Return (name, labels) → value of what is exported, labels as a sorted tuple of pairs."""
    with urllib.request.urlopen(f"{running.admin}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))), 0.0)
