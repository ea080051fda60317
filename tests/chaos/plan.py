"""Which runs are done: all that exist, those that were asked for, or a sample that a commit's hash picks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.chaos.faults import STORES, Fault
from tests.chaos.schedule import Step, chance_of, schedule_of
from tests.support.servers import program

_FINAL_SECONDS = 8
_OVERHEAD = {"sqlite": 6, "file": 6, "postgresql": 9, "mariadb": 12}  # seconds to start, settle and look at the end
_NEEDS = {"mariadb": ("mariadbd", "mariadb-install-db")}


@dataclass(frozen=True)
class Plan:
    """A run to do: ``fault`` on ``store`` for ``seconds``, with the schedule of ``seed``.

    ``final_seconds`` are those in which each worker is asked for everything after the load. ``defect`` is one put in.
    """

    fault: Fault
    store: str
    seconds: float
    seed: int
    defect: str = ""
    final_seconds: float = _FINAL_SECONDS

    @property
    def name(self) -> str:
        return f"{self.fault.name} on {self.store}"

    @property
    def estimate(self) -> float:
        """About how many seconds it takes in all."""
        return self.seconds + self.final_seconds + _OVERHEAD[self.store] + self.fault.overhead

    def schedule(self) -> list[Step]:
        return [] if self.fault.has_own_run else schedule_of(self.fault, self.store, self.seconds, self.seed)

    def as_json(self) -> dict[str, object]:
        """Return what the figures of its run begin with."""
        names = {"fault": self.fault.name, "store": self.store, "seed": self.seed, "defect": self.defect}
        return names | {"injects": self.fault.injects, "guarantees": self.fault.guarantees}

    def missing(self) -> list[str]:
        """Return the programs that it needs and that this machine lacks."""
        return [name for name in (*_NEEDS.get(self.store, ()), *self.fault.needs) if not program(name)]


def plans_of(
    faults: Iterable[Fault], stores: Sequence[str], seconds: float | None, seed: int, defect: str = ""
) -> list[Plan]:
    """Return a plan for each of ``faults`` on each of ``stores`` that it knows."""
    return [
        Plan(fault, store, seconds or fault.seconds, seed, defect)
        for fault in faults
        for store in stores
        if store in fault.stores
    ]


def sample(faults: Iterable[Fault], commit: str, budget: float) -> list[Plan]:
    """Return short runs that the hash ``commit`` picks among all, as many as ``budget`` seconds hold."""
    seed = int(commit[:8], 16)
    pairs = [(fault, store) for fault in faults for store in STORES if store in fault.stores and fault.sample_seconds]
    chance_of(seed, "sample").shuffle(pairs)
    chosen: list[Plan] = []
    for fault, store in pairs:
        plan = Plan(fault, store, _short(fault, store, seed), seed, final_seconds=3)
        if sum(one.estimate for one in chosen) + plan.estimate <= budget:
            chosen.append(plan)
    return chosen


def _short(fault: Fault, store: str, seed: int) -> float:
    """Return the seconds of a short form: its own, or up to a minute if nothing would be injected in them."""
    if fault.has_own_run:
        return fault.sample_seconds
    lengths = [seconds for seconds in (fault.sample_seconds, 30, 45, 60) if seconds >= fault.sample_seconds]
    return next((some for some in lengths if schedule_of(fault, store, some, seed)), fault.sample_seconds)
