"""Receivers whose keys change while they run, and callers who must not notice."""

import contextlib
import re
import signal
import ssl
import threading

from receiver.mock_platform.flow_states import FlowRun
from tests.support.waiting import until

TAKEN = re.compile(r"worker (\d+) has taken keys and certificates")


def log_of(folder):
    return (folder / "log").read_text()


def taken(folder):
    """Return how often each worker said that it took what was there."""
    said = TAKEN.findall(log_of(folder))
    return {worker: said.count(worker) for worker in said}


def hang_up(running, folder):
    """Send SIGHUP and wait until both workers have followed."""
    before = sum(taken(folder).values())
    running.process.send_signal(signal.SIGHUP)
    until(lambda: sum(taken(folder).values()) == before + 2)


class Caller(threading.Thread):
    """Saves and loads a state over and over, at times over a new connection, until it is told to ``stop``."""

    def __init__(self, connect, seed):
        super().__init__()
        self.connect, self.seed = connect, seed
        self.stopped = threading.Event()
        self.answered, self.wrong, self.shown = 0, [], set()

    def run(self):
        try:
            while not self.stopped.is_set():
                with contextlib.closing(self.connect()) as client:
                    for _ in range(5):
                        self.call(client)
        except Exception as failure:
            self.wrong.append(repr(failure))

    def call(self, client):
        flow = FlowRun(client.tenant, self.seed)
        for answer in (client.save(flow.state()), client.load(flow.id)):
            self.answered += 1
            if answer.status not in (200, 204):
                self.wrong.append((answer.status, answer.body))
        if isinstance(client.connection.sock, ssl.SSLSocket):
            self.shown.add(client.connection.sock.getpeercert()["serialNumber"])

    def stop(self):
        self.stopped.set()
        self.join()
        return self


@contextlib.contextmanager
def calling(connect, seeds, kind=Caller):
    callers = [kind(connect, seed) for seed in seeds]
    for caller in callers:
        caller.start()
    try:
        yield callers
    finally:
        for caller in callers:
            caller.stop()
