"""Defects put in on purpose, so that the harness proves that it finds them. Each module registers its own.

A defect names the fault and the store with which it is found, and the checks that may find it. ``python -m tests.chaos
--defect NAME --fault … --store …`` runs one.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    """A defect: what is wrong (``text``), the ``fault`` and ``store`` of the run that finds it, and its ``checks``.

    ``plant`` puts it in, before the receiver starts. ``seed`` and ``seconds`` are those of that run.
    """

    name: str
    text: str
    fault: str
    store: str
    checks: frozenset[str]
    plant: Callable[[], None]
    seed: int = 1
    seconds: float = 10


_found: dict[str, Defect] = {}


def defect(name: str, text: str, fault: str, store: str, checks: set[str], seed: int = 1, seconds: float = 10):
    """Register the decorated function, which plants the defect ``name``."""

    def register(plant: Callable[[], None]) -> Callable[[], None]:
        assert name not in _found
        _found[name] = Defect(name, text, fault, store, frozenset(checks), plant, seed, seconds)
        return plant

    return register


def all_defects() -> dict[str, Defect]:
    """Return every defect by its name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(_found)
