"""Defects of the processes, and of how they find back."""

from receiver.server.arbiter import Master
from receiver.stores.breaker import Breaker
from tests.chaos.defects import defect


@defect("nobody-replaces", "a dead worker is not replaced", "worker-kill", "sqlite", {"health", "converges", "harness"})
def _nobody_replaces() -> None:
    honest, started = Master.spawn_worker, []

    def spawn_worker(self):
        if len(started) < self.num_workers:
            started.append(1)
            return honest(self)
        return 0

    Master.spawn_worker = spawn_worker


@defect(
    "never-again",
    "a store that was found to hang is never asked again",
    "database-pause",
    "postgresql",
    {"health", "converges"},
    seconds=30,
)
def _never_again() -> None:
    honest = Breaker.begin

    def begin(self):
        return None if self.is_open else honest(self)

    Breaker.begin = begin
