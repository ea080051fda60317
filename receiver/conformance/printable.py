"""Makes text from outside safe to show: a terminal executes control characters (ECMA-48)."""


def visible(text: str) -> str:
    """Return ``text`` with unprintable characters, such as control characters and text directions, as escapes.

    Letters of any language stay; ``logs.escape``, which is for log lines, escapes those too.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_lines(text: str) -> str:
    """Return ``text`` as ``visible`` does, but keep its line breaks."""
    return "\n".join(map(visible, text.split("\n")))
