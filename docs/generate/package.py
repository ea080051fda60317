"""What the receiver's source says in calls that cannot be imported: messages of the log, figures of a scrape."""

import ast
from collections.abc import Iterator
from pathlib import Path

from docs.generate.sources import PACKAGE

APART = ("conformance", "mock_platform", "doctor")  # programs of their own: what they print is no line of the log


def calls_in(folder: Path = PACKAGE) -> Iterator[ast.Call]:
    """Yield every call in the modules of the receiver under ``folder``, in the order of their paths."""
    for path in sorted(folder.rglob("*.py")):
        if not set(path.relative_to(PACKAGE).parts) & set(APART):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def field_dicts() -> Iterator[ast.Dict]:
    """Yield every dict that is assigned or added to a variable ``fields`` which becomes a line of the log."""
    texts = (path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
    for text in (text for text in texts if "record.fields" in text or '"fields": fields' in text):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                value = node.value.body if isinstance(node.value, ast.IfExp) else node.value
                if isinstance(target, ast.Name) and target.id == "fields" and isinstance(value, ast.Dict):
                    yield value


def texts(call: ast.Call) -> list[str]:
    """Return the arguments of ``call`` at its front that are texts."""
    found = []
    for argument in call.args:
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            break
        found.append(argument.value)
    return found


def called(call: ast.Call) -> str:
    """Return the last part of the name that ``call`` calls."""
    return getattr(call.func, "attr", None) or getattr(call.func, "id", "")
