"""Small pieces of Markdown."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

_CODE = re.compile(r"(`+[^`]*`+)")
_IS_CODE = re.compile(
    r"(?<![\w/-])((?:STORAGE|DATABASE|JDBC_DATABASE)_[A-Z_]+(?:<\w+>)?|--[a-z][a-z-]*|[a-z-]+-<kid>\.json|/[a-z]+z)(?![\w/])"
)


def described(page: str, part: str) -> dict:
    """Return what is written by hand about each thing of the ``part`` of a ``page``."""
    path = Path(__file__).with_name("descriptions") / f"{page}.yaml"
    return yaml.safe_load(path.read_text())[part]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar in a cell is escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def plain(text: str) -> str:
    """Return ``text`` with settings, options and file names as code, and every other < escaped, as HTML begins so."""
    text = "".join(part if part.startswith("`") else _IS_CODE.sub(r"`\1`", part) for part in _CODE.split(text))
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("<", "\\<").replace("*", "\\*") for part in parts)


def code(text: str) -> str:
    """Return ``text`` as code, nothing if it is empty."""
    return f"`{text}`" if text else ""


def exactly(described: Mapping[str, object], found: Iterable[str], what: str) -> None:
    """Raise LookupError unless ``described`` has a description of each one ``found``, and of nothing else."""
    found = list(found)
    missing = [name for name in found if name not in described]
    left = [name for name in described if name not in found]
    if missing or left:
        raise LookupError(f"{what}: without a description {missing}; described but gone {left}")
