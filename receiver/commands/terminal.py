"""Standard output of the commands: what is printed is shown, and no terminal obeys it.

Servers, databases, file names and contents may hold control characters, which change a terminal's title, hide lines or
type for whoever looks. Every command prints through here, so that none has to think of it. ``store show --content``
writes bytes, which are not changed, where standard output is no terminal.
"""

import codecs
import io
import re
import sys

from receiver.conformance.printable import visible_lines

# What click.style, and the table of receiver conformance, write themselves.
_OWN = re.compile(r"(\x1b\[(?:\d{1,2}m|\d{1,3}A|2K))")


class _Shown(io.TextIOWrapper):
    """A stream of text that writes what is not printable as an escape."""

    styled = False

    def write(self, text: str) -> int:
        """Write ``text``; raises OSError."""
        if self.styled:
            parts = _OWN.split(text)  # text, own, text, own, ...
            return super().write("".join(part if at % 2 else visible_lines(part) for at, part in enumerate(parts)))
        return super().write(visible_lines(text))


def guard() -> None:
    """Let nothing that is printed from now on reach a terminal as a command to it."""
    former = sys.stdout
    if not isinstance(former, io.TextIOWrapper):  # closed, or a test's
        return
    # click would go around a stream in ASCII.
    encoding = "utf-8" if codecs.lookup(former.encoding).name == "ascii" else former.encoding
    errors = "backslashreplace" if former.errors == "strict" else former.errors  # a terminal may lack a sign
    former.flush()
    sys.stdout = _Shown(former.buffer, encoding, errors, line_buffering=former.line_buffering)


def allow_styles() -> None:
    """Let colours through as well: the command has made what comes from outside visible before it styles it."""
    if isinstance(sys.stdout, _Shown):
        sys.stdout.styled = True
