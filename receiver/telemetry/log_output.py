"""Writing lines without ever blocking: they go out at once where they can, else they wait in a bounded queue.

A log collector that stalls leaves a full pipe behind, and whoever writes to it waits with every lock held. Here a write
is tried without waiting, on an open file description of our own: O_NONBLOCK on the shared one would reach the user's
terminal and every other process that writes there. What does not fit waits for a thread that is started only then.
"""

import os
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from receiver.telemetry.log_losses import Losses

_MOST = 1 << 20  # bytes that wait in each process
LAST_CHANCE = 1.0  # seconds for what waits when a process ends
_PAUSE = 0.02  # seconds between attempts, and those that a thread gathers lines for one round


class _Item(NamedTuple):
    """Bytes to write, how many lines are lost without them, and whether that many were counted when they were lost."""

    data: bytes
    lines: int = 1
    is_report: bool = False
    is_rest: bool = False  # of a line whose beginning was written


class LineOutput:
    """Writes lines to the file ``number``; None is a closed one, whose lines all count as dropped.

    ``report`` makes the line that says how many were dropped. Safe to use from any thread, and after a fork.
    """

    def __init__(self, number: int | None, most: int = _MOST):
        self._most = most
        self._write, self.number, self._is_threaded = _way_to(number)
        self.report: Callable[[int], bytes] = b"%d lines were dropped\n".__mod__
        self.losses: Losses | None = None
        self.place = 0
        self._start_anew()
        os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        """Leave what waits to the parent, whose thread did not come along."""
        self._guard = threading.Lock()
        self._waiting: deque[_Item] = deque()
        self._size = 0  # bytes that wait
        self._lost = 0  # lines, since the last report
        self._is_overfull = False
        self._is_torn = False  # the last line ended in its middle
        self._thread: threading.Thread | None = None

    def count_in(self, losses: Losses, place: int) -> None:
        """Count in ``losses`` from now on, at ``place``, which is this process's own."""
        self.losses, self.place = losses, place
        losses.begin(place)

    def put(self, data: bytes) -> None:
        """Write ``data``, a whole line or several, now or later; never waits."""
        with self._guard:
            if self._waiting or self._lost or self._is_torn or self._is_threaded:
                self._queue(data)
                return
            try:
                taken = self._write(data)
            except BlockingIOError:
                taken = 0
            except OSError:
                self._lose(_Item(data))
                return
            if taken < len(data):
                self._append(_Item(data[taken:], is_rest=taken > 0))
                if not self._drain():
                    self._start_thread()

    def _queue(self, data: bytes) -> None:
        """Queue ``data`` behind what waits, and write what can be written; under the guard, as all below."""
        self._is_overfull = self._size + len(data) > self._most or (self._is_overfull and self._size > self._most // 2)
        if self._is_overfull:
            self._lose(_Item(data))
            return
        self._report()
        self._append(_Item(data))
        if self._thread is None and (self._is_threaded or not self._drain()):
            self._start_thread()

    def _report(self) -> None:
        """Queue the line that says what was lost before."""
        if self._lost:
            self._append(_Item(self.report(self._lost), self._lost, is_report=True))
            self._lost = 0

    def _append(self, item: _Item) -> None:
        if not self._waiting and self.losses:
            self.losses.wait(self.place, True)
        self._waiting.append(item)
        self._size += len(item.data)

    def _take(self) -> _Item:
        item = self._waiting.popleft()
        self._size -= len(item.data)
        if not self._waiting and self.losses:
            self.losses.wait(self.place, False)
        return item

    def _lose(self, item: _Item) -> None:
        self._lost += item.lines
        self._is_torn |= item.is_rest
        if self.losses and not item.is_report:
            self.losses.add(self.place)

    def _drain(self) -> bool:
        """Write as much of what waits as can be written now; return whether that was all."""
        while self._waiting:
            item = self._waiting[0]
            data = b"\n" + item.data if self._is_torn else item.data
            try:
                taken = self._write(data)
            except BlockingIOError:
                return False
            except OSError:
                self._lose(self._take())
                continue
            self._is_torn = False
            if taken == len(data):
                self._take()
            else:
                self._size += len(data) - taken - len(item.data)
                self._waiting[0] = item._replace(data=data[taken:], is_rest=True)
        return True

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread is left, or the process ends: the next line tries again, or flush does
            self._thread = None

    def _run(self) -> None:
        while True:
            time.sleep(_PAUSE)
            if self._is_threaded:
                self._write_patiently()
            else:
                self._await_space(LAST_CHANCE)
            with self._guard:
                if not self._waiting or (not self._is_threaded and self._drain()):
                    self._thread = None
                    return

    def _write_patiently(self) -> None:
        """Write what waits where each write may block; only this thread takes from the queue then."""
        while self._waiting:
            item = self._waiting[0]
            try:
                with memoryview(item.data) as view:
                    written = 0
                    while written < len(view):
                        written += self._write(view[written:])
            except OSError:
                with self._guard:
                    self._lose(self._take())
            else:
                with self._guard:
                    self._take()

    def _await_space(self, seconds: float) -> None:
        if self.number is None:
            time.sleep(seconds)
            return
        poll = select.poll()
        poll.register(self.number, select.POLLOUT)
        poll.poll(1000 * seconds)

    def flush(self, seconds: float = LAST_CHANCE) -> None:
        """Return when nothing waits and losses are reported, at the latest after ``seconds``."""
        limit = time.monotonic() + seconds
        has_reported = False
        while True:
            with self._guard:
                if self._is_threaded and self._waiting and self._thread is None:
                    self._start_thread()
                if not self._waiting or (not self._is_threaded and self._drain()):
                    if has_reported or not self._lost:
                        return
                    has_reported = True
                    self._report()
                    continue
            left = limit - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(_PAUSE, left))


class _Way(NamedTuple):
    """How to ``write``, the ``number`` that is written to if that can be waited for, and whether a write may block."""

    write: Callable[[bytes | memoryview], int]
    number: int | None
    is_threaded: bool


def _way_to(number: int | None) -> _Way:
    """Return how to write to the file ``number``."""
    if number is None:
        return _Way(_refuse, None, False)
    mode = os.fstat(number).st_mode
    if stat.S_ISSOCK(mode):  # the journal's, say
        sock = socket.socket(fileno=os.dup(number))
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        return _Way(lambda data: sock.send(data, flags), sock.fileno(), False)
    if stat.S_ISREG(mode):  # takes a line at once, or fails
        return _Way(partial(os.write, number), number, False)
    try:
        ours = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # another user's pipe or terminal
        return _Way(partial(os.write, number), number, True)
    return _Way(partial(os.write, ours), ours, False)


def _refuse(_data: bytes | memoryview) -> int:
    raise BrokenPipeError
