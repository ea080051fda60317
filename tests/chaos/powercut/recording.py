"""A recording: a store's first start on an empty disk, then sessions of changes that end, or are killed, and go on."""

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.powercut.history import History
from tests.chaos.shim import Rule, Shim, events
from tests.support.paths import ROOT
from tests.support.waiting import until

PROCESSES, THREADS = 2, 4
WAL_PAGES = 150  # of SQLite's log until a checkpoint: several in a recording
_SYNC_TAKES = 150  # microseconds, of a disk in memory: so changes wait, and form groups
_SLOW_SYNC, _DELAY = 14, 15  # rules of the shim
_ENDS = ("closed", "all killed", "one killed", "all killed")


@dataclass(frozen=True)
class Orders:
    """What is recorded: the ``store`` (sqlite or file), by ``seed``, so many ``changes`` of each thread and session.

    ``defect`` is the name of one of tests.chaos.defects, or "". ``failed_syncs`` fail and lose what they held, spread over
    the sessions.
    """

    store: str
    seed: int
    changes: int = 30
    sessions: int = 7
    defect: str = ""
    failed_syncs: int = 0


def url_in(store: str, root: Path) -> str:
    """Return the URL of the store below ``root``, in a folder that its first start makes."""
    return f"sqlite:///{root}/new/states.db" if store == "sqlite" else f"file://{root}/states"


def record(orders: Orders, folder: Path) -> Path:
    """Record what ``orders`` say; return the log. The disk lies in ``folder``."""
    root = folder / "disk"
    root.mkdir()
    shim = Shim(root, folder)
    shim.join()
    shim.inject(_DELAY, Rule(("sync",), "delay", microseconds=_SYNC_TAKES))
    chance = random.Random(f"{orders.seed} sessions")
    # SQLite takes no notice when the sync of a folder fails: of its files only. Not during the first start either.
    match = "states.db" if orders.store == "sqlite" else ""
    for number in range(orders.failed_syncs):
        skip = chance.randrange(60, 60 + 5 * orders.changes * orders.sessions)
        shim.inject(number, Rule(("sync",), "drop", skip=skip, times=1, match=match))
    for session in range(orders.sessions):
        end = _ENDS[session % len(_ENDS)] if session + 1 < orders.sessions else "closed"
        _session(orders, shim, session, end, chance)
    return shim.log


def history_of(log: Path) -> History:
    """Return the history of all that is in ``log``."""
    history = History()
    for event in events(log):
        if event.kind == "mark":
            history.see(event.data)
    return history


def _session(orders: Orders, shim: Shim, session: int, end: str, chance: random.Random) -> None:
    history = history_of(shim.log) if shim.log.exists() else History()
    running = [_started(orders, shim, session, process, history) for process in range(PROCESSES)]
    doomed = {"closed": [], "one killed": running[:1], "all killed": running}[end]
    if doomed:
        # During a sync that takes long: what it was to make durable is seen by the next process, and is not durable.
        shim.inject(_SLOW_SYNC, Rule(("sync",), "freeze", skip=chance.randrange(40, 40 + 2 * orders.changes)))
        until(lambda: shim.hits(_SLOW_SYNC) or running[0].poll() is not None, 60)
        for process in doomed:
            shim.kill(process.pid)
        shim.heal(_SLOW_SYNC)
    for process in running:
        _, errors = process.communicate(timeout=120)
        if process.returncode and process not in doomed:
            raise RuntimeError(f"the workload ended with {process.returncode}: {errors}")


def _started(orders: Orders, shim: Shim, session: int, process: int, history: History) -> subprocess.Popen:
    workers = []
    for thread in range(THREADS):
        name = f"{process}.{thread}"
        left = history.open.get(name)
        one = {"name": name, "first": history.last[name], "versions": history.newest[name]}
        workers.append(one | {"left": left[0]._asdict() if left else None})
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.powercut.workload"],
        cwd=ROOT,
        env=os.environ | shim.environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    text = {"url": url_in(orders.store, shim.root), "seed": f"{orders.seed} {session}", "count": orders.changes}
    text |= {"workers": workers, "defect": orders.defect, "wal_pages": WAL_PAGES}
    running.stdin.write(json.dumps(text))
    running.stdin.close()
    running.stdin = None
    return running
