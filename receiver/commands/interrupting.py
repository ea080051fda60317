"""Interrupts commands: one that has to clean up does so once, and one that hangs on a disk ends all the same."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

_PATIENCE = 5.0  # seconds between a signal and the end of a command that does not react to it
_HANGS = b"receiver: interrupted, and a call does not return (does the disk hang?)\n"


class Interruption:
    """Lets the first SIGINT or SIGTERM interrupt a command, and ignores later ones while it cleans up."""

    def __init__(self) -> None:
        self._came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._came:
            self._came = True
            raise KeyboardInterrupt


class StuckEnd:
    """Ends this process some seconds after the first SIGINT or SIGTERM that its main thread cannot react to.

    A call on a disk that hangs does not return, and Python runs no handler before it does.
    """

    def __init__(self) -> None:
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=_watch, args=(ours,), daemon=True)
        self._thread.start()

    def disarm(self) -> None:
        """Stop watching, and leave no thread behind: the process is going to fork, or handles signals by itself."""
        signal.set_wakeup_fd(-1)
        self._theirs.close()
        self._thread.join()


def _watch(signals: socket.socket) -> None:
    with signals:
        while number := signals.recv(1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                break
        else:
            return
    before = _place()
    time.sleep(_PATIENCE)
    if _place() == before:
        with contextlib.suppress(OSError):
            os.write(2, _HANGS)
        os._exit(128 + number[0])


def _place() -> tuple[int, int]:
    """Return where the main thread is: it is elsewhere once it has reacted to a signal."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return id(frame), frame.f_lasti
