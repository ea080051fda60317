"""Writing lines without ever blocking: a line goes out at once if it can, else it waits in a bounded queue.

A log collector that stalls leaves a full pipe, and a thread that writes to it blocks with every lock that it holds.
Here each write is tried without blocking, on an open file description of our own: O_NONBLOCK on the shared one would
reach the user's terminal and every other process that writes there. What does not fit is left to a thread that starts
only then.
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
LAST_CHANCE = 1.0  # seconds for the lines that still wait when a process ends
_PAUSE = 0.02  # seconds between attempts; the thread gathers lines for as long before it writes


class _Item(NamedTuple):
    """Bytes to write; how many lines are lost with them; whether they report lines that were counted as lost before."""

    data: bytes
    lines: int = 1
    is_report: bool = False
    is_rest: bool = False  # of a line whose beginning was written


class LineOutput:
    """Writes lines to the file ``number``; None is a closed one, whose lines all count as dropped.

    ``report`` makes the line that says how many were dropped. Safe to use from any thread, and after a fork.
    """

    def __init__(self, number: int | None, most: int = _MOST) -> None:
        self._most = most
        self._write, self.number, self._is_threaded = _target_of(number)
        self.report: Callable[[int], bytes] = b"%d lines were dropped\n".__mod__
        self.losses: Losses | None = None
        self.place = 0
        self._start_anew()
        os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        """Begin with an empty queue: after a fork the parent writes what waits, and its thread is not here."""
        self._guard = threading.Lock()
        self._waiting: deque[_Item] = deque()
        self._size = 0  # bytes that wait
        self._lost = 0  # lines, since the last report
        self._is_overfull = False
        self._is_torn = False  # only the beginning of the last line was written
        self._thread: threading.Thread | None = None

    def count_in(self, losses: Losses, place: int) -> None:
        """Count dropped lines in ``losses`` from now on, at ``place``, which is this process's own."""
        self.losses, self.place = losses, place
        losses.begin(place)

    def put(self, data: bytes) -> None:
        """Write ``data``, one or more whole lines, now or later; never blocks."""
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
        """Queue ``data`` behind what waits, and write what can be written; under the guard, like all methods below."""
        self._is_overfull = self._size + len(data) > self._most or (self._is_overfull and self._size > self._most // 2)
        if self._is_overfull:
            self._lose(_Item(data))
            return
        self._report()
        self._append(_Item(data))
        if self._thread is None and (self._is_threaded or not self._drain()):
            self._start_thread()

    def _report(self) -> None:
        """Queue the line that says how many were lost before."""
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
        """Write as much of the queue as can be written now; return whether that was all."""
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
        except RuntimeError:  # no thread is left, or the process ends: the next line or flush tries again
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
        """Write the queue to a file whose writes may block; only this thread takes from the queue then."""
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
        """Return when the queue is empty and losses are reported, at the latest after ``seconds``."""
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


class _Target(NamedTuple):
    """A function that writes; the ``number`` of the file if one can poll it; and whether a write may block."""

    write: Callable[[bytes | memoryview], int]
    number: int | None
    is_threaded: bool


def _target_of(number: int | None) -> _Target:
    """Return how to write to the file ``number`` without blocking, if that is possible."""
    if number is None:
        return _Target(_refuse, None, False)
    mode = os.fstat(number).st_mode
    if stat.S_ISSOCK(mode):  # such as the journal's
        sock = socket.socket(fileno=os.dup(number))
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        return _Target(lambda data: sock.send(data, flags), sock.fileno(), False)
    if stat.S_ISREG(mode):  # a write succeeds at once, or fails
        return _Target(partial(os.write, number), number, False)
    try:
        ours = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # another user's pipe or terminal
        return _Target(partial(os.write, number), number, True)
    return _Target(partial(os.write, ours), ours, False)


def _refuse(_data: bytes | memoryview) -> int:
    raise BrokenPipeError
