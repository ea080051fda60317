"""The stream in the place of sys.stderr while requests are served, so that no write to it ever blocks.

It takes the lines of the log, of gunicorn, of tracebacks and of warnings (receiver.telemetry.log_output).
"""

import atexit
import contextlib
import faulthandler
import io
import os
import sys

from receiver.telemetry.log_output import LineOutput


class LineStream(io.TextIOBase):
    """A text stream for an ``output``, in the place of sys.stderr: passes on whole lines and keeps the rest."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, output: LineOutput, is_terminal: bool) -> None:
        self.output, self._is_terminal = output, is_terminal
        self._part = ""

    def write(self, text: str) -> int:
        """Write the whole lines of ``text``; never blocks."""
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
        """Do nothing: what can be written was written, and waiting for the rest would block."""

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
    """Open /dev/null for each standard file that is closed; otherwise a file of the store would get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def install() -> None:
    """Make every write of this process to sys.stderr non-blocking; does nothing the second time.

    At the end, the process waits for a second at most until the last lines are written.
    """
    if isinstance(sys.stderr, LineStream):
        return
    if sys.stderr is None:  # the process began with it closed
        sys.stderr = LineStream(LineOutput(None), False)
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream of somebody's own
        if sys.stderr.fileno() != 2:
            return
        sys.stderr.flush()
        output = LineOutput(2)
        sys.stderr = LineStream(output, os.isatty(2))
        atexit.register(flush)
        if faulthandler.is_enabled():
            faulthandler.enable(file=2 if output.number is None else output.number)


def installed() -> LineOutput | None:
    """Return the output of standard error, None if ``install`` has not put one there."""
    return sys.stderr.output if isinstance(sys.stderr, LineStream) else None


def flush() -> None:
    """Give the lines that still wait a second: this process is about to end."""
    if output := installed():
        output.flush()


def say(text: str) -> None:
    """Print ``text`` and a line end to standard output, within a second or not at all."""
    output = LineOutput(1)
    output.put(f"{text}\n".encode("utf-8", "backslashreplace"))
    output.flush()
