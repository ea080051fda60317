"""Kills workers of a receiver under load, and tells for each request that failed whether it was in flight in one of them.

A request is in flight in a worker when its bytes are sent on a connection that the worker has accepted, and its reply
is not read yet. The kernel knows who has accepted what: a worker is stopped, its sockets are read from /proc, and then
it is killed. What waits in the listener's queue belongs to no worker.
"""

import contextlib
import http.client
import itertools
import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from tests.support.serving import address_of, children_of
from tests.support.waiting import pass_time, until

PATIENCE = 30  # seconds until a client gives up
_ESTABLISHED = ("01", "08")  # and CLOSE_WAIT, in /proc/net/tcp, see proc(5)


@dataclass
class Call:
    """A request from the client's ``port``, and how it ended: a ``status``, or the name of an error in ``failure``.

    Times are of time.monotonic(). ``is_first`` says whether it is the first one of its connection.
    """

    kind: str
    port: int
    began: float
    is_first: bool
    ended: float = 0.0
    status: int = 0
    failure: str = ""

    @property
    def has_failed(self) -> bool:
        return bool(self.failure) or self.status >= 500


@dataclass
class Kill:
    """A worker that was stopped ``at`` that time and ``gone`` at this one, and the client ports that it had accepted."""

    pid: int
    at: float
    gone: float
    ports: frozenset[int]

    def held(self, call: Call) -> bool:
        """Tell whether ``call`` was in flight in this worker."""
        return call.port in self.ports and call.began <= self.gone and not 0 < call.ended < self.at

    def made_stale(self, call: Call) -> bool:
        """Tell whether ``call`` met an idle connection that had died with this worker."""
        return call.port in self.ports and not call.is_first and call.began > self.gone


def accepted_by(pid: int, port: int) -> frozenset[int]:
    """Return the client ports of the connections to ``port`` that the process has accepted."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(descriptor))
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        is_ours = int(fields[1].rpartition(":")[2], 16) == port and fields[3] in _ESTABLISHED
        if is_ours and f"socket:[{fields[9]}]" in inodes:
            found.add(int(fields[2].rpartition(":")[2], 16))
    return frozenset(found)


def kill(pid: int, port: int) -> Kill | None:
    """Kill the worker ``pid`` of the receiver at ``port``; return None when it has ended by itself."""
    try:
        os.kill(pid, signal.SIGSTOP)
        at = time.monotonic()
        until(lambda: "T (stopped)" in Path(f"/proc/{pid}/status").read_text(), 5, "it does not stop", pause=0.001)
        ports = accepted_by(pid, port)
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return None
    until(lambda: _is_gone(pid), 5, "it does not end", pause=0.001)
    return Kill(pid, at, time.monotonic(), ports)


def _is_gone(pid: int) -> bool:
    """Tell whether the system has closed the process's connections: it has ended, and may wait for its parent."""
    try:
        return "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


class Caller(threading.Thread):
    """Saves and loads states one after the other; notes each call. ``keeps`` its connection, or makes one for each."""

    def __init__(self, url: str, tenant: str, keys, seed: int, done: threading.Event, keeps: bool) -> None:
        super().__init__(daemon=True)
        self.client = Client(url, tenant, keys, timeout=PATIENCE)
        self.flow = FlowRun(tenant, seed)
        self.done, self.keeps = done, keeps
        self.calls: list[Call] = []
        self.acknowledged: dict[str, str] = {}
        self._call = self.client.call
        self.client.call = self._noted  # type: ignore[method-assign]

    def run(self) -> None:
        while not self.done.is_set():
            state = self.flow.state()
            self._save(state)
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.client.load(state["id"])
            self.flow.step()
            del self.flow.entries[3:]
            self.flow.values.clear()
        self.client.close()

    def _save(self, state) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self.client.save(state).status == 204:
                self.acknowledged[state["id"]] = state["content"]

    def _noted(self, method, path, body=None, headers=None):
        is_first = self.client.connection.sock is None
        headers = self.client.headers(path)
        if is_first:
            self.client.connection.connect()
        port = self.client.connection.sock.getsockname()[1]
        call = Call(method, port, time.monotonic(), is_first)
        self.calls.append(call)
        try:
            answer = self._call(method, path, body, headers)
            call.status = answer.status
            return answer
        except (OSError, http.client.HTTPException) as cause:
            call.failure = type(cause).__name__
            raise
        finally:
            call.ended = time.monotonic()
            if not self.keeps:
                self.client.close()


@dataclass
class Outcome:
    """What came of a load: its ``calls``, the ``kills``, the callers' ``acknowledged`` states by tenant."""

    seconds: float
    calls: list[Call]
    kills: list[Kill]
    acknowledged: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def failed(self) -> list[Call]:
        return [call for call in self.calls if call.has_failed]

    @property
    def in_flight(self) -> list[int]:
        """For each kill: the number of requests in flight in that worker."""
        return [sum(map(kill.held, self.calls)) for kill in self.kills]

    @property
    def failed_in_flight(self) -> list[int]:
        """For each kill: the number of those that failed."""
        return [sum(map(kill.held, self.failed)) for kill in self.kills]

    @property
    def stale(self) -> list[Call]:
        """The requests that met an idle connection whose worker was gone: a client repeats them."""
        return [call for call in self.failed if not self._is_held(call) and self._is_stale(call)]

    @property
    def unexplained(self) -> list[Call]:
        """The requests that failed though no killed worker had accepted their connection."""
        return [call for call in self.failed if not self._is_held(call) and not self._is_stale(call)]

    @property
    def longest_gap(self) -> float:
        """The longest time, in seconds, without an answer below 500."""
        ends = sorted(call.ended for call in self.calls if not call.has_failed)
        return max((after - before for before, after in itertools.pairwise(ends)), default=self.seconds)

    def _is_held(self, call: Call) -> bool:
        return any(kill.held(call) for kill in self.kills)

    def _is_stale(self, call: Call) -> bool:
        return any(kill.made_stale(call) for kill in self.kills)

    def __str__(self) -> str:
        count, kills = len(self.calls), max(1, len(self.kills))
        answered = count - len(self.failed)
        return (
            f"{count} requests in {self.seconds:.0f} s, {100 * answered / max(1, count):.2f} % answered;"
            f" {len(self.kills)} kills, per kill {sum(self.in_flight) / kills:.2f} in flight and"
            f" {sum(self.failed_in_flight) / kills:.2f} of them failed; {len(self.stale)} on stale connections,"
            f" {len(self.unexplained)} others; longest without an answer"
            f" {self.longest_gap:.2f} s, longest request {max(call.ended - call.began for call in self.calls):.2f} s"
        )


def under_kills(
    running,
    keys,
    tenants,
    seconds: float,
    every: float = 0.5,
    at_once: int = 1,
    seed: int = 1,
    keeps=lambda number: number % 2 == 1,
) -> Outcome:
    """Return what comes of a load of ``seconds`` on the receiver ``running``, of whose workers ``at_once`` random ones
    die each ``every`` seconds. Each tenant of ``tenants`` has a caller; every other one keeps its connection.
    """
    chance, done = random.Random(seed), threading.Event()
    callers = [Caller(running.url, tenant, keys, n, done, keeps(n)) for n, tenant in enumerate(tenants)]
    master, port = running.process.pid, address_of(running)[1]
    for caller in callers:
        caller.start()
    kills: list[Kill] = []
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        pass_time(every, "the pace of the kills is the subject")
        workers = children_of(master)
        for pid in chance.sample(workers, min(at_once, len(workers))):
            if found := kill(pid, port):
                kills.append(found)
    done.set()
    for caller in callers:
        caller.join(2 * PATIENCE)
    took = time.monotonic() - began
    calls = sorted((call for caller in callers for call in caller.calls), key=lambda call: call.began)
    return Outcome(took, calls, kills, {one.client.tenant: one.acknowledged for one in callers})
