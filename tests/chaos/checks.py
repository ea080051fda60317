"""The checks: each says which promise of the protocol it checks, and finds in the evidence where that was broken."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.evidence import Evidence
from tests.chaos.journal import REFUSED, UNKNOWN


@dataclass(frozen=True)
class Finding:
    """A promise that was broken: the ``check`` that found it, ``at`` which moment, and what it saw."""

    check: str
    at: float
    text: str


@dataclass(frozen=True)
class Check:
    """A check: its ``name``, the ``promise`` (protocol, section 10; 0: of the manual), what it says, and ``find``."""

    name: str
    promise: int
    text: str
    find: Callable[[Evidence], Iterator[tuple[float, str]]]


CHECKS: dict[str, Check] = {}


def check(name: str, promise: int, text: str):
    """Register the decorated function, which yields (moment, what it saw) of each finding, as the check ``name``."""

    def register(find):
        CHECKS[name] = Check(name, promise, text, find)
        return find

    return register


def findings(evidence: Evidence) -> list[Finding]:
    """Return what all checks find, in the order of time."""
    found = [Finding(one.name, at, text) for one in CHECKS.values() for at, text in one.find(evidence)]
    return sorted(found, key=lambda finding: finding.at)


def _of_reads(name: str, promise: int, text: str) -> None:
    check(name, promise, text)(lambda evidence: ((one.at, one.text) for one in evidence.misreads if one.check == name))


_of_reads("lost", 1, "an acknowledged save is there, or something newer")
_of_reads("stale", 1, "a load that began after the acknowledgement returns that save, or something newer")
_of_reads("resurrected", 1, "what was deleted stays deleted")
_of_reads("older wins", 5, "an older save never replaces a newer one")
_of_reads("wrong content", 5, "a load returns a content that was saved under this id, byte for byte")
_of_reads("effect of a refusal", 2, "a request that got a 4xx stored, changed and deleted nothing")


@check("refused", 3, "a correct request, also repeated, is never refused; an incorrect one always is")
def _refused(evidence):
    for operation in evidence.operations:
        for attempt in operation.attempts:
            wanted = operation.call == "bad"
            is_404 = operation.call == "load" and attempt.status == 404
            if attempt.outcome == REFUSED and not wanted and not is_404:
                yield attempt.ended, f"{operation.call} {operation.number} got {attempt.status}"
            if attempt.outcome == "acknowledged" and wanted:
                yield attempt.ended, f"the broken save {operation.number} got {attempt.status}"


@check("converges", 3, "a change of unknown outcome is acknowledged when it is repeated")
def _converges(evidence):
    for operation in evidence.operations:
        if operation.call in ("save", "delete") and operation.acknowledged is None and not operation.is_refused:
            last = operation.attempts[-1]
            what = f"{operation.call} {operation.number}: {len(operation.attempts)} attempts, the last"
            yield last.began, f"{what} got {last.status or last.note or 'no answer'}"


@check("no 500", 4, "no request is answered 500")
def _no_500(evidence):
    for operation in evidence.operations:
        for attempt in operation.attempts:
            if attempt.status == 500:
                yield attempt.ended, f"{operation.call} {operation.number}"


@check("in time", 4, "every request is answered within STORAGE_STORE_TIMEOUT + 5 seconds")
def _in_time(evidence):
    for operation in evidence.operations:
        for attempt in operation.attempts:
            took = (attempt.ended or evidence.ended) - attempt.began
            if took > evidence.most_seconds:
                yield attempt.began + took, f"{operation.call} {operation.number} took {took:.1f} s"


@check("bystanders", 4, "a worker that is killed takes only requests with it that were on its own connections")
def _bystanders(evidence):
    if evidence.knows_ports:
        for operation, attempt in evidence.attempts:
            if attempt.outcome == UNKNOWN and evidence.place_of(attempt) == "elsewhere":
                what = attempt.status or attempt.note
                yield attempt.ended or evidence.ended, f"{operation.call} {operation.number} got {what}"


@check("answers", 4, "whatever a fault does, what it does not concern is answered as ever, and the rest as it says")
def _answers(evidence):
    for operation, attempt in evidence.attempts:
        allowed = evidence.answers.get(operation.call)
        if allowed and attempt.status not in allowed:
            got = attempt.status or attempt.note or "no answer"
            yield attempt.ended or evidence.ended, f"{operation.call} {operation.number} got {got}"


@check("power cut", 1, "after a power cut, a store opens and has all that was acknowledged before")
def _power_cut(evidence):
    yield from evidence.wrong


@check("replies verify", 5, "every 200 for a load is signed, sealed and complete")
def _verifies(evidence):
    for operation in evidence.operations:
        for attempt in operation.attempts:
            if attempt.note.startswith("not verified"):
                yield attempt.ended, f"load {operation.number}: {attempt.note}"


@check("health", 1, "health answers 200 or 503, and 200 at the end")
def _health(evidence):
    asked = [(one, attempt) for one in evidence.operations if one.call == "health" for attempt in one.attempts]
    for operation, attempt in asked:
        if attempt.status not in (None, 200, 503):
            yield attempt.ended, f"health {operation.number} got {attempt.status}"
    last = [attempt for _, attempt in asked if attempt.began >= evidence.checked_from]
    for attempt in last:
        if attempt.status != 200:
            yield (
                attempt.ended,
                f"health got {attempt.status or attempt.note} after the run, at worker {attempt.worker}",
            )


@check("recovers", 0, "the first 2xx comes as soon after the end of a fault as the fault says, without a restart")
def _recovers(evidence):
    most = evidence.recovers_within
    for window, took in zip(evidence.windows, evidence.recoveries, strict=True):
        if most is not None and took > most:
            yield window.ended, f"{took:.1f} s after {window.what}; at most {most:g}"


@check("probes", 0, "livez, readyz and metrics answer 200 at the end")
def _probes(evidence):
    for number, probes in enumerate(evidence.probes, 1):
        for name, status in probes.items():
            if status != 200:
                yield evidence.ended, f"{name} of receiver {number} got {status or 'no answer'}"


@check("processes", 4, "no process ends but those that a fault ended, and SIGTERM ends a receiver with 0")
def _processes(evidence):
    for end in evidence.ends:
        if not end.was_meant:
            yield end.at, end.what
    for number, status in enumerate(evidence.statuses, 1):
        if status != 0:
            yield evidence.ended, f"receiver {number} ended with {status} after SIGTERM"


@check("log", 7, "no log holds a private key, a content or a whole token")
def _log(evidence):
    for number, log in enumerate(evidence.logs, 1):
        for what, word in evidence.secrets.items():
            if word in log:
                yield evidence.ended, f"the log of receiver {number} holds {what}"
        if _TOKEN.search(log):
            yield evidence.ended, f"the log of receiver {number} holds a token"


@check("log lines", 7, "every line of a log is one of the receiver's: none is forged, none torn")
def _log_lines(evidence):
    for number, log in enumerate(evidence.logs, 1):
        for line in log.splitlines():
            if line and not _is_record(line):
                yield evidence.ended, f"the log of receiver {number}: {line[:200]!r}"


def _is_record(line: str) -> bool:
    try:
        return {"time", "level", "message"} <= set(json.loads(line))
    except (ValueError, TypeError):
        return False


_TOKEN = re.compile(r"eyJ[\w-]{20,}\.[\w-]*\.[\w-]{20,}")


@check("defects", 4, "the log reports no defect of the receiver")
def _defects(evidence):
    for number, log in enumerate(evidence.logs, 1):
        for line in log.splitlines():
            if '"trace":' in line or "Traceback (most recent call last)" in line:
                yield evidence.ended, f"receiver {number}: {line[:400]}"


@check("leftovers", 0, "no temporary file, no run folder and no process is left")
def _leftovers(evidence):
    for name in evidence.leftovers:
        yield evidence.ended, name


@check("harness", 0, "the run itself went as it was planned")
def _harness(evidence):
    for problem in evidence.problems:
        yield evidence.ended, problem
