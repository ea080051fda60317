"""What a run leaves behind, for the checks and for the report."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from tests.chaos import model
from tests.chaos.journal import ACKNOWLEDGED, Attempt, Operation
from tests.chaos.subject import End


@dataclass(frozen=True)
class Window:
    """One injection as it was done: from ``began`` to ``ended`` (time.monotonic()), and ``what`` it was.

    ``ports`` are the clients' ports of the connections that it ended, where it knows them and ends nothing else.
    """

    began: float
    ended: float
    what: str
    ports: frozenset[int] | None = None


@dataclass
class Evidence:
    """All of a run: ``began`` and ``ended`` are those of its load; ``checked_from`` is when the final loads began.

    ``contents`` are (tenant, id, digest) of all that the store held at the end, or None when it was not read.
    ``statuses`` are the exit statuses of the receivers after SIGTERM; ``logs`` their logs; ``secrets`` are words that no
    log may hold, by what they are; ``probes`` are the statuses of each receiver's probes at the end; ``leftovers`` are names of files that should not be there, and of processes.
    """

    operations: Sequence[Operation]
    began: float
    ended: float
    checked_from: float
    most_seconds: float  # that a request may take
    windows: Sequence[Window] = ()
    recovers_within: float | None = None  # what the fault guarantees
    contents: Sequence[tuple[str, str, str]] | None = None
    ends: Sequence[End] = ()
    statuses: Sequence[int] = ()
    logs: Sequence[str] = ()
    secrets: dict[str, str] = field(default_factory=dict)
    probes: Sequence[dict[str, int | None]] = ()
    leftovers: Sequence[str] = ()
    problems: Sequence[str] = ()
    answers: Mapping[str, Collection[int]] = field(default_factory=dict)  # of Fault
    wrong: Sequence[tuple[float, str]] = ()  # what the fault itself found (Fault.look): when, and what

    @cached_property
    def keys(self) -> dict[tuple[str, str], model.Key]:
        return model.keys_of(self.operations)

    @cached_property
    def misreads(self) -> list[model.Misread]:
        """All reads that returned what they must not."""
        found = list(model.misreads(self.operations, self.keys, self.checked_from))
        if self.contents is not None:
            found += model.held_wrongly(self.contents, self.keys, float("inf"))
        return found

    @cached_property
    def saves(self) -> list[tuple[float, int]]:
        """(when, how many states) of each acknowledged save, in order."""
        found = [
            (one.acknowledged, len(one.items))
            for one in self.operations
            if one.call == "save" and one.acknowledged is not None
        ]
        return sorted(found)

    @property
    def acknowledged_states(self) -> int:
        return sum(states for _, states in self.saves)

    @cached_property
    def attempts(self) -> list:
        """(operation, attempt) of all requests of the load, without the final loads."""
        return [
            (operation, attempt)
            for operation in self.operations
            for attempt in operation.attempts
            if attempt.began < self.checked_from
        ]

    @property
    def count(self) -> int:
        """How many operations the load began."""
        return sum(1 for one in self.operations if one.began < self.checked_from)

    @property
    def failed(self) -> int:
        """How many requests of the load got no answer, or a 5xx."""
        return sum(1 for _, attempt in self.attempts if attempt.outcome == "unknown")

    @property
    def knows_ports(self) -> bool:
        """Whether every fault was one that knows which connections it ended, and ended nothing else."""
        return bool(self.windows) and all(window.ports is not None for window in self.windows)

    @cached_property
    def failed_by_place(self) -> Counter:
        """How many failed "in flight" in what a fault ended, on its "dead connections", and "elsewhere"."""
        failed = [one for _, one in self.attempts if one.outcome == "unknown" and self.knows_ports]
        return Counter(self.place_of(one) for one in failed)

    def place_of(self, attempt: Attempt) -> str:
        """Return where ``attempt`` failed, as ``failed_by_place`` names it."""
        last = attempt.ended or self.ended
        mine = [one for one in self.windows if attempt.port in (one.ports or ()) and one.began <= last]
        if any(attempt.began <= one.began for one in mine):
            return "in flight"
        return "dead connections" if mine else "elsewhere"

    @property
    def status_counts(self) -> dict[str, int]:
        """How often each status came; "none" without an answer."""
        return dict(sorted(Counter(str(one.status or "none") for _, one in self.attempts).items()))

    @property
    def longest_pause(self) -> float:
        """The longest time without an acknowledged save while the load lasted."""
        moments = [self.began, *(at for at, _ in self.saves if at <= self.ended), self.ended]
        return max(later - earlier for earlier, later in pairwise(moments))

    @property
    def longest_request(self) -> float:
        return max((one.ended - one.began for _, one in self.attempts if one.ended and one.status), default=0.0)

    @cached_property
    def recoveries(self) -> list[float]:
        """How long it took from the end of each injection to the next 2xx for a save, a load or a delete."""
        answered = sorted(
            attempt.ended
            for operation, attempt in self.attempts
            if attempt.outcome == ACKNOWLEDGED and operation.call != "health"
        )
        later = [next((at for at in answered if at >= window.ended), float("inf")) for window in self.windows]
        return [at - window.ended for at, window in zip(later, self.windows, strict=True)]

    @property
    def recovery(self) -> float | None:
        """The longest of them; None without any."""
        return max(self.recoveries, default=None)
