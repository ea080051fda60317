"""Processes killed with SIGKILL."""

from tests.chaos.faults import Fault, fault


@fault
class WorkerKilled(Fault):
    name = "worker-kill"
    injects = "kill -9 of a random worker, every half second to second"
    guarantees = "Only requests that were in flight in that worker fail."
    every = (0.5, 1.0)

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        if workers := receiver.workers():
            receiver.kill(step.choose(workers))
