"""Signals of a worker: handlers note what came, and the main thread acts where it holds no lock.

A handler runs between any two steps of the main thread. What it calls may find a lock taken or a list half changed by
that same thread, so handlers here set flags, queue work for the worker's loop, or end the process.
"""

import contextlib
import os
import signal
import threading
from types import FrameType

from gunicorn.workers.gthread import PollableMethodQueue, ThreadWorker

from receiver.server import reload
from receiver.telemetry import standard_error

HASTE = 1.5  # seconds that running requests get after SIGINT or SIGQUIT; the master waits for a little longer
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU)  # a group gets them too


class _Queue(PollableMethodQueue):
    """gunicorn's queue, whose pipe stays open until the process ends.

    A late signal or thread still writes to it: by then its number could belong to a file of the store.
    """

    def close(self) -> None:
        """Leave the pipe open."""


class SignalledWorker(ThreadWorker):
    """A worker that is safe against any signals in any order. SIGTERM finishes what runs; SIGINT and SIGQUIT hurry."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.method_queue = _Queue()

    def init_signals(self) -> None:
        """Listen to signals, also to those that came since the fork; SIGHUP means other keys and certificates."""
        super().init_signals()
        for number in _IGNORED:  # their default would end or suspend the worker; the log has no file to reopen
            signal.signal(number, signal.SIG_IGN)
        if hasattr(self.app, "refresh"):
            signal.signal(signal.SIGHUP, self.handle_hup)
            signal.siginterrupt(signal.SIGHUP, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, reload.SIGNALS)

    def handle_hup(self, sig: int, frame: FrameType | None) -> None:
        """Queue a reload."""
        self.method_queue.defer(self.read_anew)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stop within HASTE: queue that for the loop, or leave at once while there is no loop yet."""
        if self.booted:
            self.alive = False
            self.method_queue.defer(self._leave)
        elif self.alive:
            self.alive = False
            raise SystemExit(0)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """End now: the master sends SIGABRT to a worker whose main thread hangs, so no loop would look at a flag."""
        self.cfg.worker_abort(self)
        os._exit(1)

    def read_anew(self) -> None:
        """Take the keys and certificates that are there now."""

    def _leave(self) -> None:
        """End the loop; running requests get HASTE to finish."""
        with contextlib.suppress(RuntimeError):  # the system has no thread left; then the master ends this process
            limit = threading.Timer(HASTE, _end)
            limit.daemon = True
            limit.start()
        self.cfg.worker_int(self)
        raise SystemExit(0)


def _end() -> None:
    standard_error.flush()
    os._exit(0)
