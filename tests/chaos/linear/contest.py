"""A contest for few keys at two receivers of two workers each, with workers killed or not, and the verdict on it."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from receiver.mock_platform.keys import new_store as new_keys
from tests.chaos.faults import Fault
from tests.chaos.linear.judging import Verdict, judge
from tests.chaos.linear.recording import History, record
from tests.chaos.stores import new_store
from tests.chaos.subject import Subject, environment_of, running

_LONGEST = 300  # seconds


@dataclass(frozen=True)
class Contest:
    """What came of one: the ``history``, how many workers were ``killed``, the ``seconds`` it took, the ``verdict``."""

    store: str
    history: History
    killed: int
    seconds: float
    verdict: Verdict

    @property
    def holds(self) -> bool:
        """Whether the history is linearizable, and every answer was one that the protocol has."""
        return self.verdict.verdict == "Ok" and not self.history.wrong

    def __str__(self) -> str:
        statuses = ", ".join(f"{count} × {status or 'none'}" for status, count in sorted(self.history.statuses.items()))
        lines = [f"{self.store}: {self.seconds:.1f} s, {self.killed} workers killed, answers {statuses}"]
        return "\n".join([*lines, f"  {self.verdict}", *(f"  wrong: {text}" for text in self.history.wrong[:10])])


def contest(store: str, folder: Path, operations: int, seed: int, kill_every: float = 0, clients: int = 16) -> Contest:
    """Let ``clients`` contend on a new ``store`` for so many ``operations``; kill a worker each ``kill_every`` seconds.

    The history and the pages of keys that have no order are written to ``folder``.
    """
    keys, fault, chance = new_keys(), Fault(), random.Random(f"{seed} kills")
    fault.receivers = 2
    with new_store(store, folder / "store") as under_test:
        subject = Subject(fault, under_test, folder, keys, environment_of(under_test, keys, folder, fault.workers))
        with running(subject):
            began = time.monotonic()

            def is_over(history: History) -> bool:
                now = time.monotonic()
                if kill_every and now > began + kill_every * (len(subject.meant) + 1):
                    _kill_one(subject, chance)
                return len(history.lines) >= operations or now > began + _LONGEST

            history = record([one.url for one in subject.receivers], keys, clients, seed, is_over)
            took, killed = time.monotonic() - began, len(subject.meant)
    history.write(folder / "history.jsonl")
    return Contest(store, history, killed, took, judge(folder / "history.jsonl"))


def _kill_one(subject: Subject, chance: random.Random) -> None:
    receiver = chance.choice(subject.receivers)
    if workers := receiver.workers():
        receiver.kill(chance.choice(workers))
