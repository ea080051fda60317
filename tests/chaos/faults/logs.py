"""A log that nobody reads."""

import contextlib
import fcntl
import os

from tests.chaos.faults import Fault, fault


class _Piped(Fault):
    """The receivers log into a pipe; nothing of it comes into the log that is checked."""

    every = (2.0, 4.0)

    def prepare(self, subject):
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        subject.memory |= {"reading": reading, "writing": writing, "stderr": writing}

    def tidy(self, subject):
        for name in ("reading", "writing"):
            if (end := subject.memory.pop(name, None)) is not None:
                os.close(end)


@fault
class LogUnread(_Piped):
    name = "log-unread"
    injects = "a log into a pipe of 4 KB that is full but for moments, while a random worker is killed"
    guarantees = "Requests do not wait for the log: lines are dropped and counted."

    def prepare(self, subject):
        super().prepare(subject)
        os.set_blocking(subject.memory["reading"], False)

    def inject(self, subject, step):
        with contextlib.suppress(BlockingIOError):
            os.read(subject.memory["reading"], 1 << 16)
        if workers := subject.receivers[0].workers():
            subject.receivers[0].kill_worker(step.choose(workers))


@fault
class LogClosed(_Piped):
    name = "log-closed"
    injects = "a log into a pipe whose reading end is closed, while a random worker is killed"
    guarantees = "Requests do not fail for the log: lines are dropped and counted."

    def inject(self, subject, step):
        if (end := subject.memory.pop("reading", None)) is not None:
            os.close(end)
        if workers := subject.receivers[0].workers():
            subject.receivers[0].kill_worker(step.choose(workers))
