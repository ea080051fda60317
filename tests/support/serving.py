"""Receivers as real processes, and clients that write without a pause."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from receiver.commands.demo import running_receiver
from receiver.mock_platform.flow_states import FlowRun
from tests.support.waiting import until

SECONDS = 10


def children_of(pid: int) -> list[int]:
    """Return the processes that ``pid`` started, once there are any."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return until(lambda: [int(child) for child in children.read_text().split()], 5, "no worker was started")


def address_of(running) -> tuple[str, int]:
    parts = urlsplit(running.url)
    return parts.hostname, parts.port


@contextlib.contextmanager
def serving(keys, folder, program=("receiver",), **environment):
    with open(folder / "log", "a") as log, running_receiver(keys, folder, log, program, **environment) as running:
        yield running


class Writer(threading.Thread):
    """Saves and loads one state over and over; remembers the newest save that was acknowledged."""

    def __init__(self, client, seed, until):
        super().__init__()
        self.client = client
        self.run_ = FlowRun(client.tenant, seed)
        self.until = until
        self.counts, self.wrong = {}, []
        self.acknowledged = None

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.turn()
        except Exception as failure:
            self.wrong.append(repr(failure))

    def turn(self):
        self.run_.step()
        state = self.run_.state()
        self.count(self.client.save(state).status)
        self.acknowledged = state["content"]
        answer = self.client.load(self.run_.id)
        self.count(answer.status)
        if self.client.open(self.run_.id, answer) != self.acknowledged:
            self.wrong.append("another content than was acknowledged last")
        if len(self.run_.entries) > 30:  # keep the state at a realistic size
            del self.run_.entries[6:]
            self.run_.values.clear()

    def count(self, status):
        self.counts[status] = self.counts.get(status, 0) + 1


def environment_of(keys, folder, **more):
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "PYTHONPATH")}
    return clean | {
        "STORAGE_ADMIN_BIND": "off",
        "STORAGE_LOG_FORMAT": "text",
        "DATABASE_URL": f"sqlite:///{folder}/states.db",
        "PLATFORM_KEY": json.dumps(keys.platform.public()),
        "RECEIVER_KEY": json.dumps(keys.receiver.private()),
        **more,
    }
