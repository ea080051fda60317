"""One run: a fault on a store, with a load, from the first start to the last check."""

import contextlib
import json
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from receiver.mock_platform.keys import new_store as new_keys
from tests.chaos import checks, final, journal
from tests.chaos.contents import digest_of
from tests.chaos.evidence import Evidence, Window
from tests.chaos.faults import Fault
from tests.chaos.load import Orders, loading
from tests.chaos.plan import Plan
from tests.chaos.schedule import Step, chance_of
from tests.chaos.stores import new_store
from tests.chaos.subject import STORE_TIMEOUT, Subject, environment_of, running, settle
from tests.support.waiting import pass_time

_MOST_SECONDS = STORE_TIMEOUT + 5


@dataclass
class Result:
    """What a run found. Times in ``evidence`` are of the machine's monotonic clock."""

    plan: Plan
    evidence: Evidence
    findings: list[checks.Finding]
    took: float
    excused: list[checks.Finding] = field(default_factory=list)

    def count(self, check: str) -> int:
        return sum(1 for one in self.findings if one.check == check)


def run(plan: Plan, folder: Path) -> Result:
    """Do ``plan`` in ``folder``, a new one on a disk that the fault does not touch; return what was found."""
    began = time.monotonic()
    keys = new_keys()
    problems: list[str] = []
    with new_store(plan.store, folder / "store") as store:
        environment = environment_of(store, keys, folder, plan.fault.workers)
        subject = Subject(plan.fault, store, folder, keys, environment)
        if plan.defect:
            subject.program[1:] = ["-m", "tests.chaos.launch", plan.defect]
        try:
            plan.fault.prepare(subject)
            with running(subject):
                evidence = _loaded(plan, subject, problems)
                _after(plan, subject, evidence)
            evidence.contents = [(tenant, id, digest_of(content)) for tenant, id, content in store.contents()]
            plan.fault.look(subject, evidence)
        finally:
            plan.fault.tidy(subject)
    evidence.logs = [receiver.log.read_text(errors="replace") for receiver in subject.receivers]
    evidence.secrets = _secrets(keys)
    evidence.leftovers = [*evidence.leftovers, *_left(folder)]
    found = checks.findings(evidence)
    excused = [one for one in found if one.check in plan.fault.excuses]
    return Result(plan, evidence, [one for one in found if one not in excused], time.monotonic() - began, excused)


def _loaded(plan: Plan, subject: Subject, problems: list[str]) -> Evidence:
    """Load, inject what is planned, heal; return the evidence so far."""
    chance = chance_of(plan.seed, "tenants")
    tenants = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(3)]
    urls = [receiver.url for receiver in subject.receivers]
    orders = Orders(urls, subject.keys, tenants, subject.folder, plan.seed, **plan.fault.orders)
    windows: list[Window] = []
    with loading(orders) as load:
        began = time.monotonic()
        for step in plan.schedule():
            _wait_until(began + step.at)
            windows.append(_injected(plan.fault, subject, step, problems))
        _wait_until(began + plan.seconds - 0.5)
        with _noted(problems):
            plan.fault.finish(subject)
        _wait_until(began + plan.seconds)
        ended = time.monotonic()
    operations = journal.read(load.journals)
    most = plan.fault.recovers_within
    evidence = Evidence(operations, began, ended, time.monotonic(), _MOST_SECONDS, windows, most, problems=problems)
    evidence.answers = plan.fault.answers
    return evidence


def _wait_until(moment: float) -> None:
    pass_time(max(0.0, moment - time.monotonic()), "the schedule says when")


def _injected(fault: Fault, subject: Subject, step: Step, problems: list[str]) -> Window:
    at, told, subject.struck, subject.healed = time.monotonic(), None, None, None
    with _noted(problems):
        told = fault.inject(subject, step)
    what = " ".join(filter(None, (fault.name, *map(str, step.details.values()), str(told or ""))))
    struck, ports = subject.struck or (at, None)
    return Window(struck, subject.healed or time.monotonic(), what, ports)


@contextlib.contextmanager
def _noted(problems: list[str]):
    try:
        yield
    except Exception as failure:
        problems.append(f"{type(failure).__name__}: {failure}")


def _after(plan: Plan, subject: Subject, evidence: Evidence) -> None:
    """Ask every worker, then stop all receivers."""
    with _noted(evidence.problems):
        settle(subject)
        evidence.checked_from = time.monotonic()
        names = evidence.keys
        found = final.ask_workers(subject, subject.keys, names, subject.folder, plan.seed, plan.final_seconds)
        evidence.operations = [*evidence.operations, *journal.read(found)]
        evidence.probes = [receiver.probes() for receiver in subject.receivers]
    evidence.ends = [*subject.ends]
    families = {pid for receiver in subject.receivers for pid in receiver.family()}
    evidence.statuses = [receiver.stop() for receiver in subject.receivers if receiver.is_wanted]
    left = [pid for pid in families if Path(f"/proc/{pid}").exists()]
    evidence.leftovers = [f"process {pid} of a receiver that has ended" for pid in left]
    if _left(subject.folder):  # what was killed could not clear up: the next start does
        with _noted(evidence.problems):
            subject.receivers[0].start()
            subject.receivers[0].wait()
            subject.receivers[0].stop()


def _secrets(keys) -> dict[str, str]:
    """Return words that no log may hold."""
    return {
        "the receiver's private key": json.loads(json.dumps(keys.receiver.private()))["d"],
        "a content": "secretOfClient",
    }


def _left(folder: Path) -> list[str]:
    """Return what receivers that have ended left in their folders for temporary and running things."""
    found = [path for name in ("run", "tmp") for path in (folder / name).rglob("*")]
    found += [*(folder / "store").rglob("*.tmp*"), *(folder / "store").rglob(".change/*")]
    return [f"{path.relative_to(folder)} is left" for path in found]
