"""What stands in for sys.stderr where requests are served, so that nothing that is written there ever blocks.

It takes the lines of the log, of gunicorn, of tracebacks and of warnings alike (receiver.telemetry.log_output).
"""

import atexit
import contextlib
import faulthandler
import io
import os
import sys

from receiver.telemetry.log_output import LineOutput


class LineStream(io.TextIOBase):
    """The text stream of an ``output``, to stand in for sys.stderr: whole lines are written, the rest is kept."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, output: LineOutput, is_terminal: bool):
        self.output, self._is_terminal = output, is_terminal
        self._part = ""

    def write(self, text: str) -> int:
        """Write ``text`` as far as its lines are whole; never waits."""
        lines = self._part + text
        if not lines.endswith("\n"):
            end = lines.rfind("\n") + 1
            lines, self._part = lines[:end], lines[end:]
        elif self._part:
            self._part = ""
        if lines:
            self.output.put(lines.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: what can be written was, and waiting for the rest is what this must not do."""

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return whether a terminal shows the lines."""
        return self._is_terminal

    def fileno(self) -> int:
        """Return the number of standard error."""
        return 2


def open_closed_files() -> None:
    """Open /dev/null as each standard file that is closed; else a file of the store would get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def install() -> None:
    """Let everything that this process writes to sys.stderr go out without waiting, once; at the end for a second."""
    if isinstance(sys.stderr, LineStream):
        return
    if sys.stderr is None:
        sys.stderr = LineStream(LineOutput(None), False)
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream of somebody's own
        if sys.stderr.fileno() != 2:
            return
        sys.stderr.flush()
        sys.stderr = LineStream(LineOutput(2), os.isatty(2))
        atexit.register(flush)
        if faulthandler.is_enabled():
            faulthandler.enable(file=sys.stderr.output.number)


def installed() -> LineOutput | None:
    """Return the output that standard error has here, None without one."""
    return sys.stderr.output if isinstance(sys.stderr, LineStream) else None


def flush() -> None:
    """Give what still waits a last chance, of a second: this process is about to end."""
    if output := installed():
        output.flush()


def say(text: str) -> None:
    """Print ``text`` and a line end to standard output, within a second or not at all."""
    output = LineOutput(1)
    output.put(f"{text}\n".encode("utf-8", "backslashreplace"))
    output.flush()
