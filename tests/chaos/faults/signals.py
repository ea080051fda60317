"""Signals that processes survive: frozen ones, reloads, more and fewer workers."""

import os
import signal

from tests.chaos.faults import Fault, fault
from tests.support.waiting import pass_time, until


def _signal(pids, number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _frozen(pids, seconds: float) -> None:
    """Freeze ``pids`` for so many seconds."""
    _signal(pids, signal.SIGSTOP)
    try:
        pass_time(seconds, "they are frozen for as long as the schedule says")
    finally:
        _signal(pids, signal.SIGCONT)


@fault
class WorkerFrozen(Fault):
    name = "worker-freeze"
    injects = "SIGSTOP of a random worker for 1 to 6 seconds, then SIGCONT"
    guarantees = "What waits in that worker is answered when it goes on; other workers answer meanwhile."
    every, lasts = (1.0, 3.0), (1.0, 6.0)

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        _frozen([step.choose(until(receiver.workers, 10, "there is no worker"))], step.lasts)


@fault
class AllFrozen(Fault):
    name = "all-freeze"
    injects = "SIGSTOP of all processes of the receiver for 1 to 6 seconds, then SIGCONT, as a paused machine does"
    guarantees = "Every request is answered when it goes on; nothing acknowledged is lost."
    every, lasts = (2.0, 4.0), (1.0, 6.0)

    def inject(self, subject, step):
        _frozen(step.choose(subject.receivers).family(), step.lasts)


@fault
class Reloaded(Fault):
    name = "reload"
    injects = "SIGHUP to the master: keys and certificates are read again"
    guarantees = "No request fails."
    every = (0.5, 2.0)

    def inject(self, subject, step):
        _signal([step.choose(subject.receivers).pid], signal.SIGHUP)


@fault
class WorkersCounted(Fault):
    name = "worker-count"
    injects = "SIGTTIN and SIGTTOU to the master: a worker more, a worker fewer, from one to five"
    guarantees = "No request fails that a worker had begun to read."
    every = (1.0, 3.0)

    def details(self, chance):
        return {"signal": chance.choice(("TTIN", "TTOU"))}

    def inject(self, subject, step):
        count = subject.memory.setdefault("workers", self.workers)
        wanted = min(5, count + 1) if step.details["signal"] == "TTIN" else max(1, count - 1)
        if wanted != count:
            self._change(subject, wanted)

    def _change(self, subject, wanted: int) -> None:
        receiver = subject.receivers[0]
        number = signal.SIGTTIN if wanted > subject.memory["workers"] else signal.SIGTTOU
        subject.meant.update(receiver.family()[1:])
        _signal([receiver.pid], number)
        subject.memory["workers"] = wanted
        until(lambda: len(receiver.workers()) == wanted, 40, f"there are not {wanted} workers")

    def finish(self, subject):
        while (count := subject.memory.get("workers", self.workers)) != self.workers:
            self._change(subject, count + (1 if count < self.workers else -1))
