"""Workers that end after so many requests, under gunicorn itself: the receiver's own server has no such setting."""

import sys

from tests.chaos.faults import Fault, fault


@fault
class Recycled(Fault):
    name = "recycling"
    injects = "gunicorn with --max-requests 100: workers end by themselves all the time"
    guarantees = "No request fails that a worker had begun to read."
    excuses = frozenset({"log lines"})  # gunicorn's own lines have its own form there

    def plan(self, chance, seconds):
        return ()  # gunicorn does it

    def prepare(self, subject):
        words = "--no-control-socket --worker-class receiver.server.worker.Worker --max-requests 100"
        words += f" --max-requests-jitter 50 --workers {self.workers} --threads 8"

        def command(receiver):
            bound = ["--bind", f"127.0.0.1:{receiver.port}", "receiver.app:create_app()"]
            return [sys.executable, "-m", "gunicorn", *words.split(), *bound]

        subject.memory["command"] = command

    def inject(self, subject, step):
        raise AssertionError("there is nothing to inject")
