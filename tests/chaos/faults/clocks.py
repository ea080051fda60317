"""The machine's clock steps, and the clients' clock with it."""

import random
import time
from types import SimpleNamespace

from receiver.mock_platform import tokens
from tests.chaos.clocks.faking import FakedClock
from tests.chaos.faults import Fault, fault
from tests.support.waiting import pass_time


class ClockFault(Fault):
    """Steps of the receivers' clock. The load's clock follows, so that only what is under way at a step is refused."""

    guarantees = "Nothing is lost or stale; signatures of another time get 401; no worker ends."
    excuses = frozenset({"refused", "replies verify", "converges", "effect of a refusal"})
    every = (0.5, 3.0)
    lasts = (1.0, 4.0)
    needs = ("faketime", "cc")
    monotonic = False

    def details(self, chance: random.Random):
        return {"seconds": chance.choice((600, -3600))}

    def prepare(self, subject):
        clock = subject.memory["clock"] = FakedClock(subject.folder / "clock", self.monotonic)
        clock.step(0)
        subject.environment |= clock.environment
        # The load's processes are forked with this.
        tokens.time = SimpleNamespace(time=lambda: time.time() + int(clock.file.read_text()))

    def inject(self, subject, step):
        clock = subject.memory["clock"]
        workers = [one.workers() for one in subject.receivers]
        clock.step(step.details["seconds"])
        pass_time(step.lasts, "how long the clock is wrong")
        clock.step(0)
        assert [one.workers() for one in subject.receivers] == workers, "a worker did not survive"

    def finish(self, subject):
        subject.memory["clock"].step(0)

    def tidy(self, subject):
        tokens.time = time


@fault
class WallClock(ClockFault):
    name = "clock-step"
    injects = "the wall clock steps by 10 minutes forward or an hour back, and returns after 1 to 4 s"


@fault
class AllClocks(ClockFault):
    name = "clock-step-monotonic"
    injects = "as clock-step, and the monotonic clock steps with it, as in a virtual machine that was frozen"
    monotonic = True
    excuses = ClockFault.excuses | {"in time"}
