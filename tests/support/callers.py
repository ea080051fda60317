"""Threads that call a receiver over and over, as long as a test tries something on it."""

import contextlib
import json
import threading
import time

from receiver.mock_platform.flow_states import FlowRun


class Caller(threading.Thread):
    """Takes one ``turn`` after the other until it is ``done``; keeps (began, status, seconds) of each of its ``answers``."""

    def __init__(self, client):
        super().__init__()
        self.client, self.done = client, threading.Event()
        self.answers = []

    def run(self):
        while not self.done.is_set():
            self.done.wait(self.turn())

    def turn(self) -> float:
        """Call, and return after how many seconds to do so again."""
        raise NotImplementedError

    def asked(self, call, *words):
        """Return the answer of ``call``, which is noted."""
        began = time.monotonic()
        answer = call(*words)
        self.answers.append((began, answer.status, time.monotonic() - began))
        return answer


class Player(Caller):
    """Saves one run that goes on, and loads it each time."""

    def __init__(self, client, seed):
        super().__init__(client)
        self.flow = FlowRun(client.tenant, seed)

    def turn(self):
        self.flow.step()
        state = self.flow.state() | {"content": json.dumps({"step": len(self.answers)})}
        self.flow.entries.clear()
        self.asked(self.client.save, state)
        self.asked(self.client.load, self.flow.id)
        return 0.01


class Repeater(Caller):
    """Loads and saves the same ``state`` of one tenant in turns, more slowly where it is refused."""

    def __init__(self, client, state):
        super().__init__(client)
        self.state, self.loads = state, False

    def turn(self):
        self.loads = not self.loads
        answer = (
            self.asked(self.client.load, self.state["id"]) if self.loads else self.asked(self.client.save, self.state)
        )
        return 0.02 if answer.status < 500 else 0.5


@contextlib.contextmanager
def calling(callers):
    """Let ``callers`` call meanwhile; yields them."""
    callers = list(callers)
    for caller in callers:
        caller.start()
    try:
        yield callers
    finally:
        for caller in callers:
            caller.done.set()
        for caller in callers:
            caller.join()
