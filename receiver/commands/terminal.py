"""Standard output of the commands, made safe: no terminal obeys what is printed.

Servers, databases, file names and contents may hold control characters, which change a terminal's title, hide lines or
type for the person who looks. Every command prints through this stream, so that no command has to think of it. Only
``store show --content`` writes bytes unchanged, if standard output is not a terminal.
"""

import codecs
import io
import re
import sys

from receiver.conformance.printable import visible_lines

# The sequences that click.style and the table of receiver conformance write.
_OWN = re.compile(r"(\x1b\[(?:\d{1,2}m|\d{1,3}A|2K))")


class _Escaping(io.TextIOWrapper):
    """A text stream that writes unprintable characters as escapes."""

    styled = False

    def write(self, text: str) -> int:
        """Write ``text``; raises OSError."""
        if self.styled:
            parts = _OWN.split(text)  # text, own, text, own, ...
            return super().write("".join(part if at % 2 else visible_lines(part) for at, part in enumerate(parts)))
        return super().write(visible_lines(text))


def guard() -> None:
    """Escape everything that is printed from now on, so that no terminal takes it for a command."""
    former = sys.stdout
    if not isinstance(former, io.TextIOWrapper):  # closed, or a test's
        return
    # click would bypass a stream in ASCII.
    encoding = "utf-8" if codecs.lookup(former.encoding).name == "ascii" else former.encoding
    errors = "backslashreplace" if former.errors == "strict" else former.errors  # a terminal may lack a character
    former.flush()
    sys.stdout = _Escaping(former.buffer, encoding, errors, line_buffering=former.line_buffering)


def allow_styles() -> None:
    """Let colours through as well; the command escapes text from outside before it styles it."""
    if isinstance(sys.stdout, _Escaping):
        sys.stdout.styled = True
