"""Processes killed with SIGKILL, and receivers that are stopped and started again."""

from tests.chaos.faults import Fault, fault
from tests.support.waiting import until


@fault
class WorkerKilled(Fault):
    name = "worker-kill"
    injects = "kill -9 of a random worker, each half second"
    guarantees = "Only requests that were in flight in that worker fail; nothing acknowledged is lost."
    every = (0.4, 0.6)

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        if workers := receiver.workers():
            receiver.kill_worker(step.choose(workers))


@fault
class MasterKilled(Fault):
    name = "master-kill"
    injects = "kill -9 of the master; the service manager starts the receiver again"
    every = (3.0, 6.0)

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        subject.meant.update(receiver.family())
        receiver.kill(receiver.pid)
        receiver.wait_for_restart()


@fault
class EverythingKilled(Fault):
    name = "all-kill"
    injects = "kill -9 of all processes of the receiver at once; the service manager starts it again"
    every = (3.0, 6.0)

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        receiver.kill_all()
        receiver.wait_for_restart()


@fault
class Restarted(Fault):
    name = "restart"
    injects = "SIGTERM to the master, and a start after its end"
    guarantees = "Requests that are under way are answered; the exit status is 0; nothing acknowledged is lost."
    every = (3.0, 6.0)

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        receiver.kill(receiver.pid, 15)
        receiver.wait_for_restart()
        assert receiver.last_status == 0, f"SIGTERM ended it with {receiver.last_status}"


@fault
class OneOfTwoKilled(Fault):
    name = "two-receivers"
    injects = "two receivers of two workers on one store; all of one, or one worker, is killed"
    receivers = 2
    every = (2.0, 4.0)

    def details(self, chance):
        return {"what": chance.choice(("all of one", "a worker"))}

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        if step.details["what"] == "a worker":
            until(receiver.workers, 10, "there is no worker to kill")
            receiver.kill(step.choose(receiver.workers()))
            return
        receiver.kill_all()
        receiver.wait_for_restart()
