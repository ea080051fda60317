"""Records histories of few keys that many clients save, load and delete at once, as the Go program beside this reads them."""

import contextlib
import http.client
import itertools
import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE, Answer, Client
from receiver.mock_platform.flow_states import FlowRun, ticks
from receiver.mock_platform.keys import StoreKeys
from tests.support.waiting import pass_time

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_KINDS = ("save",) * 9 + ("load",) * 8 + ("delete",) * 3


@dataclass
class History:
    """What happened: ``lines`` as history.go describes them, ``statuses`` (0: no answer), and what was ``wrong``.

    ``keys`` is how many keys are in use at a time, ``lifetime`` how many operations a key sees before another one takes its
    place: a history of one key that is long takes longer to judge than several short ones.
    """

    tenant: str
    keys: int = 4
    lifetime: int = 400
    lines: list[dict] = field(default_factory=list)
    statuses: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    started: itertools.count = field(default_factory=itertools.count)

    def key(self, number: int) -> str:
        """Return the id that the operation ``number`` is about."""
        age, which = divmod(number, self.keys * self.lifetime)
        return str(uuid.uuid5(uuid.UUID(self.tenant), f"{age} {which % self.keys}"))

    def write(self, path: Path) -> None:
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))


class Contender(threading.Thread):
    """One client. It repeats what is unknown, as the protocol allows it, for ``patience`` seconds."""

    def __init__(self, history: History, number: int, url: str, keys: StoreKeys, seed: int, patience: float) -> None:
        super().__init__(daemon=True)
        self.history, self.number, self.patience = history, number, patience
        self.client = Client(url, history.tenant, keys, timeout=30)
        self.chance = random.Random(f"{seed} {number}")
        self.template = FlowRun(history.tenant, number).state()
        self.done = threading.Event()

    def run(self) -> None:
        with contextlib.closing(self.client):
            try:
                while not self.done.is_set():
                    self.turn(next(self.history.started))
            except Exception as failure:
                self.history.wrong.append(f"client {self.number}: {failure!r}")

    def turn(self, number: int) -> None:
        """Take one operation; its updatedAt is near those of the others, so that older and equal ones are common."""
        id, kind = self.history.key(number), self.chance.choice(_KINDS)
        line = {"client": self.number, "key": f"{self.history.tenant}/{id}", "kind": kind}
        method, path, body = "POST", f"{BASE}/states/{self.history.tenant}", None
        if kind == "save":
            line |= {"updated": number // 8 + self.chance.randrange(5), "content": f"{number}-{self.number}"}
            body = json.dumps([{"token": tokens.seal_state(self._state(id, line), self.client.keys)}]).encode()
        elif kind == "delete":
            method, body = "DELETE", json.dumps([id]).encode()
        else:
            method, path = "GET", f"{path}/{id}"
        headers = self.client.headers(path)
        line["call"] = time.monotonic_ns()
        answer = self._asked(method, path, body, headers)
        line["return"] = time.monotonic_ns() if answer else 0
        if answer and kind == "load":
            line["found"] = self.client.open(id, answer) if answer.status == 200 else None
        self.history.lines.append(line)

    def _state(self, id: str, line: dict) -> dict:
        updated = ticks(_BEGAN + timedelta(seconds=line["updated"]), 0)
        return self.template | {"id": id, "updatedAt": updated, "content": line["content"]}

    def _asked(self, method: str, path: str, body: bytes | None, headers: dict) -> Answer | None:
        """Return the answer that tells the outcome; None when there was none within ``patience``."""
        until = time.monotonic() + self.patience
        while True:
            try:
                answer = self.client.call(method, path, body, headers)
            except (OSError, http.client.HTTPException):
                answer = None
            status = answer.status if answer else 0
            self.history.statuses[status] += 1
            if status in ((200, 404) if method == "GET" else (204,)):
                return answer
            if 400 <= status < 500 or status == 500:
                self.history.wrong.append(f"{method} was answered {status}: {answer.body[:200]!r}")
            if time.monotonic() > until or self.done.is_set() or method == "GET":
                return None
            pass_time(0.05, "a platform that was refused does not come again at once")


def record(
    urls: Sequence[str],
    keys: StoreKeys,
    clients: int = 16,
    seed: int = 1,
    is_over: Callable[[History], bool] = lambda history: len(history.lines) >= 3000,
    patience: float = 5,
    **sizes: int,
) -> History:
    """Let ``clients`` contend at the receivers at ``urls`` until the history ``is_over``; return it.

    Every other client repeats nothing, so that outcomes stay unknown.
    """
    history = History(str(uuid.uuid4()), **sizes)
    contenders = [
        Contender(history, number, urls[number // 2 % len(urls)], keys, seed, patience if number % 2 else 0)
        for number in range(clients)
    ]
    for one in contenders:
        one.start()
    while not is_over(history) and any(one.is_alive() for one in contenders):
        pass_time(0.05, "the clients contend")
    for one in contenders:
        one.done.set()
    for one in contenders:
        one.join(90)
    return history
