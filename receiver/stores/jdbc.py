"""A ``jdbc:`` URL, as the Java service took it, → the URL of the same store as ``urls.py`` reads it."""


def translate(url: str) -> str:
    """Return the URL that means what ``url`` means; raises ValueError."""
    return "sqlite:///" + url.removeprefix("jdbc:sqlite:")
