"""Runs checks against a receiver one by one, and cleans up what they leave behind."""

import http.client
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from receiver.conformance import clock, peer
from receiver.conformance.cleaning import Left, clean
from receiver.conformance.clock import Clock
from receiver.conformance.exchanges import Record, masked
from receiver.conformance.printable import visible
from receiver.conformance.registry import Check
from receiver.conformance.target import Target
from receiver.conformance.trial import Failed, Traces, Trial, Undecided

PASS, FAIL, UNDECIDED = VERDICTS = ("pass", "fail", "not decided")


@dataclass(frozen=True)
class Result:
    """The result of a ``check``: ``expected`` and ``came`` for a failure, the reason in ``came`` if undecided.

    ``peer`` is the known deviation of the Java service, if the check failed in exactly that way.
    """

    check: Check
    verdict: str
    expected: str = ""
    came: str = ""
    seconds: float = 0.0
    record: Record = field(default_factory=Record)
    peer: str = ""

    def __post_init__(self) -> None:
        for name in ("expected", "came"):  # may quote a foreign server, and goes to terminals
            object.__setattr__(self, name, visible(getattr(self, name)))


@dataclass
class Report:
    """A whole run, with what it ``left`` at the receiver and the receiver's ``clock``."""

    url: str
    tenant: str
    level: str
    started: datetime
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    left: Left = field(default_factory=Left)
    clock: Clock = field(default_factory=Clock)

    @property
    def conforms(self) -> bool:
        """Whether every check passed; an undecided check did not pass."""
        return bool(self.results) and all(result.verdict == PASS for result in self.results)

    def count(self, verdict: str, group: str | None = None) -> int:
        """Return how many results have this ``verdict``, in total or in ``group``."""
        return sum(one.verdict == verdict and group in (None, one.check.group) for one in self.results)

    def groups(self) -> dict[str, list[Result]]:
        """Return the results by group; each group has its failures first, then keeps the order of the checks."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.check.group, []).append(result)
        order = {FAIL: 0, UNDECIDED: 1, PASS: 2}
        return {name: sorted(some, key=lambda one: order[one.verdict]) for name, some in found.items()}

    @property
    def warning(self) -> str:
        """A warning to read before the results if the clocks differ; "" otherwise."""
        return self.clock.warning(fails=not self.conforms)

    def like_the_peer(self) -> int:
        """Return how many checks failed in the same way as with the Java service."""
        return sum(bool(result.peer) for result in self.results)

    def requests(self) -> int:
        """Return how many requests were sent."""
        return sum(result.record.count for result in self.results)


def run(
    target: Target,
    checks: Sequence[Check],
    level: str,
    progress: Callable[[Check, Result | None], None],
    warn: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run ``checks`` against ``target`` and return the Report.

    Calls ``progress`` before and after each check, and ``warn`` before the first one if the receiver's clock is off.
    After an interrupt from the keyboard it cleans up too, and the remaining checks are undecided.
    Raises Unreachable if nothing answers at all.
    """
    report = Report(target.url, target.tenant, level, datetime.now(UTC), clock=clock.read(target.reach()))
    if report.clock.is_off:
        warn(report.clock.warning(fails=False))
    began, other = time.perf_counter(), str(uuid.uuid4())
    traces = Traces()
    waiting = list(checks)
    try:
        while waiting:
            progress(waiting[0], None)
            result = _run_one(waiting[0], Trial(target, other, traces))
            waiting.pop(0)
            report.results.append(result)
            progress(result.check, result)
    except KeyboardInterrupt:
        report.results += [Result(check, UNDECIDED, came="the run was interrupted") for check in waiting]
    finally:
        report.left = clean(target, traces.made, all_refused=traces.all_refused)
    report.seconds = time.perf_counter() - began
    return report


def _run_one(check: Check, trial: Trial) -> Result:
    began = time.perf_counter()
    verdict, expected, came, known = PASS, "", "", ""
    try:
        check.run(trial)
    except Failed as failure:
        verdict, expected, came = FAIL, failure.expected, failure.came
        known = peer.known_deviation(check.id, failure.observation)
    except Undecided as reason:
        verdict, came = UNDECIDED, str(reason)
    except (OSError, http.client.HTTPException) as fault:
        verdict, came = UNDECIDED, f"no answer came: {type(fault).__name__}: {masked(str(fault))}"
    except json.JSONDecodeError:
        verdict, expected, came = FAIL, "a JSON body", "a body that is not JSON came"
    except Exception as fault:  # noqa: BLE001 - an answer so far from the contract that the check tripped over it
        verdict, expected = FAIL, "an answer in the contract's form"
        came = f"it could not be read: {type(fault).__name__}: {masked(str(fault))}"
    finally:
        trial.close()
    return Result(check, verdict, expected, came, time.perf_counter() - began, trial.record, known)
