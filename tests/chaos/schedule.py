"""Schedules: when a fault is injected, and how. The same seed gives the same schedule."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Step:
    """One injection: ``at`` so many seconds after the load began, for ``lasts`` seconds (0: it is a moment).

    ``chance`` is a number below 1 by which the fault chooses among what it finds then (which of the workers, say);
    ``details`` are the fault's own.
    """

    at: float
    lasts: float = 0.0
    chance: float = 0.0
    details: Mapping[str, object] = field(default_factory=dict)

    def choose(self, some):
        """Return one of ``some``, a sequence that is not empty, by ``chance``."""
        return some[int(self.chance * len(some))]

    def as_json(self) -> dict:
        return asdict(self)


def chance_of(seed: int, *words: object) -> random.Random:
    """Return the source of chance of ``seed`` for what ``words`` name; the same on every machine."""
    return random.Random(" ".join(map(str, (seed, *words))))


def schedule_of(fault, store: str, seconds: float, seed: int) -> list[Step]:
    """Return the steps of ``fault`` on ``store`` within so many seconds, in their order."""
    return sorted(fault.plan(chance_of(seed, fault.name, store, "schedule"), seconds), key=lambda step: step.at)
