"""The faults. Each module of this folder registers its own with ``@fault``; ``all_faults`` finds them.

A fault says what it injects and what is guaranteed nevertheless: both stand in the report and in the manual.
"""

import importlib
import pkgutil
import random
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from tests.chaos.schedule import Step

SQLITE, FILE, POSTGRESQL, MARIADB = STORES = ("sqlite", "file", "postgresql", "mariadb")
_found: dict[str, "Fault"] = {}


class Fault:
    """A kind of fault. Subclasses say what and how; an instance is shared by all runs, so it keeps nothing of one.

    ``excuses`` names the checks (tests.chaos.checks) that this fault may fail, because nobody can guarantee them.
    ``every`` are the least and the most seconds between two injections, ``lasts`` those that one takes.
    ``receivers`` and ``workers`` say how many are to run. ``seconds`` is what a run takes unless it is told otherwise,
    ``sample_seconds`` that of its short form in CI (None: it has none), ``overhead`` what a run takes beyond that.
    ``recovers_within`` are the seconds from the end of an injection to the first 2xx, if that is guaranteed.
    ``needs`` names programs of the machine. ``orders`` replaces fields of the load's Orders. ``answers`` are the only
    statuses that a call (save, load, delete) may get while the load lasts, where the fault promises that.
    What a run needs to remember belongs in ``subject.memory``, a dict.
    """

    name = ""
    stores: tuple[str, ...] = STORES
    injects = ""
    guarantees = "Nothing acknowledged is lost or stale; what is unknown converges."
    excuses: frozenset[str] = frozenset()
    every: tuple[float, float] = (2.0, 6.0)
    lasts: tuple[float, float] = (0.0, 0.0)
    receivers = 1
    workers = 2
    seconds: float = 60
    sample_seconds: float | None = 20
    overhead: float = 0
    recovers_within: float | None = None
    needs: tuple[str, ...] = ()
    orders: Mapping[str, object] = MappingProxyType({})
    answers: Mapping[str, Collection[int]] = MappingProxyType({})

    def plan(self, chance: random.Random, seconds: float) -> Iterable[Step]:
        """Yield the steps of a run of ``seconds``; of nothing but ``chance``, so that a seed can be repeated."""
        at = min(2.0, seconds / 4)
        while True:
            at += chance.uniform(*self.every)
            lasts = chance.uniform(*self.lasts)
            if at + lasts > seconds - 1:
                return
            yield Step(round(at, 3), round(lasts, 3), chance.random(), self.details(chance))
            at += lasts

    def details(self, chance: random.Random) -> dict[str, object]:
        """Return the details of one step."""
        return {}

    def prepare(self, subject) -> None:
        """Change ``subject`` before its receivers start: its environment, its wrapper, its store."""

    def own_run(self, plan, folder: Path) -> dict | None:
        """Do ``plan`` without a load of the harness and return its figures (tests.chaos.report); None: an ordinary run."""
        return None

    @property
    def has_own_run(self) -> bool:
        """Whether ``own_run`` takes the place of an ordinary run, so that there is no schedule."""
        return type(self).own_run is not Fault.own_run

    def inject(self, subject, step: Step) -> None:
        """Do one step and return when it is over, healed by what this fault itself heals."""
        raise NotImplementedError

    def finish(self, subject) -> None:
        """Heal what is left, before the receivers are asked for everything."""

    def look(self, subject, evidence) -> None:
        """Look at what the run left, after the receivers have ended; what is wrong belongs in ``evidence.wrong``."""

    def tidy(self, subject) -> None:
        """Release what the run took (mounts, processes), also after a failure."""


def fault(kind: type[Fault]) -> type[Fault]:
    """Register ``kind``."""
    assert kind.name and kind.injects and kind.name not in _found, kind
    _found[kind.name] = kind()
    return kind


def all_faults() -> dict[str, Fault]:
    """Return every fault by its name, in the order of their modules; "none" comes first."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_found.items(), key=lambda pair: pair[0] != "none"))
