"""Text that came from outside, made fit to be shown: a terminal obeys what it is sent (ECMA-48)."""


def visible(text: str) -> str:
    """Return ``text`` with what is not printable written as an escape: control characters, directions of writing.

    Letters of any language stay; ``logs.escape``, for lines of the log, writes those as escapes too.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_lines(text: str) -> str:
    """Return ``text`` as ``visible`` does, its lines kept apart."""
    return "\n".join(map(visible, text.split("\n")))
