"""The signal handlers of a worker: they only record a signal, and its main loop acts where it holds no lock.

A handler interrupts the main thread between any two steps, perhaps while that thread holds a lock or changes a list. So
these handlers set flags, queue work for the worker's loop, or end the process, and do nothing else.
"""

import contextlib
import logging
import mmap
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers.gthread import PollableMethodQueue, ThreadWorker

from receiver.telemetry import standard_error

FAST_STOP = 1.5  # seconds for running requests after SIGINT or SIGQUIT; the master waits a little longer
MASTER_SIGNALS = frozenset(Arbiter.SIGNALS)  # those that the master handles
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU)


class _Queue(PollableMethodQueue):
    """gunicorn's queue of work for the main loop, with a pipe that stays open until the process ends.

    A late signal or thread still writes to the pipe; after a close, its number could belong to a file of the store.
    """

    def close(self) -> None:
        """Leave the pipe open."""


class SignalSafeWorker(ThreadWorker):
    """A worker that is safe against any signals in any order.

    SIGTERM lets running requests finish; SIGINT and SIGQUIT give them FAST_STOP seconds.
    """

    cfg: Config
    log: logging.Logger
    pid: int
    alive: bool
    booted: bool
    is_reloadable = False  # whether SIGHUP reloads keys and certificates; if not, it ends the process

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.method_queue = _Queue()
        self._shared = mmap.mmap(-1, 1)  # with the master, which made this before the fork

    @property
    def was_serving(self) -> bool:
        """Whether this worker has begun to serve, or had when it ended; the master asks."""
        return bool(self._shared[0])

    def begin_to_serve(self) -> None:
        """Note that everything is loaded, so that connections are accepted from now on."""
        self._shared[0] = 1

    def init_signals(self) -> None:
        """Install the handlers, and unblock the signals that arrived since the fork. SIGHUP reloads keys."""
        super().init_signals()
        for number in _IGNORED:  # a process group gets them too, and by default they would end or suspend the worker
            signal.signal(number, signal.SIG_IGN)
        if self.is_reloadable:
            signal.signal(signal.SIGHUP, self.handle_hup)
            signal.siginterrupt(signal.SIGHUP, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)

    def handle_hup(self, sig: int, frame: FrameType | None) -> None:
        """Queue a reload."""
        self.method_queue.defer(self.reload_keys)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stop within FAST_STOP: queue that for the loop, or end at once before the loop runs."""
        if self.booted:
            self.alive = False
            self.method_queue.defer(self._stop_fast)
        elif self.alive:
            self.alive = False
            raise SystemExit(0)

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """End now: the master sends SIGABRT to a worker whose main thread hangs, so its loop would not see a flag."""
        self.cfg.worker_abort(self)
        os._exit(1)

    def reload_keys(self) -> None:
        """Take the present keys and certificates."""

    def _stop_fast(self) -> None:
        """End the loop; running requests get FAST_STOP seconds to finish."""
        with contextlib.suppress(RuntimeError):  # the system has no thread left; then the master ends this process
            limit = threading.Timer(FAST_STOP, _end)
            limit.daemon = True
            limit.start()
        self.cfg.worker_int(self)
        raise SystemExit(0)


def _end() -> None:
    standard_error.flush()
    os._exit(0)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Hold back the master's signals as long as the context lasts, so that a fork loses none."""
    signal.pthread_sigmask(signal.SIG_BLOCK, MASTER_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, MASTER_SIGNALS)


def is_alive(pid: int) -> bool:
    """Tell whether the process ``pid`` is there; gunicorn may have reaped it as an unknown child."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
