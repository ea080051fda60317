"""The rules of this folder: where tests lie, how long they are, what they import, and how they wait."""

import ast
from pathlib import Path

from tests.support.paths import ROOT

FOLDER = ROOT / "tests"
FILES = sorted(path for path in FOLDER.rglob("*.py") if "found" not in path.parts)
TREES = {str(path.relative_to(FOLDER)): ast.parse(path.read_text()) for path in FILES}
TESTS = [name for name in TREES if Path(name).name.startswith("test_")]
MODULES = {".".join(("tests", *Path(name).with_suffix("").parts)) for name in TESTS}
MOST_LINES = 500
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)

# May import another test module, or sleep; each with its reason.
IMPORTS: dict[str, str] = {}
SLEEPS = {
    "support/waiting.py": "all waiting is there",
}


def imported(tree) -> set[str]:
    """Return the full names of what ``tree`` imports: modules, and names from modules."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sleeps(tree) -> list[int]:
    """Return the lines of ``tree`` that name time.sleep, called or handed on."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr == "sleep" and ast.unparse(node.value) == "time")
        or (isinstance(node, ast.ImportFrom) and node.module == "time" and any(a.name == "sleep" for a in node.names))
    ]


def test_no_test_module_is_imported():
    found = {name: sorted(imported(tree) & MODULES) for name, tree in TREES.items() if name not in IMPORTS}
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_no_test_module_and_nothing_that_tests_share_is_long():
    lengths = {name: len((FOLDER / name).read_text().splitlines()) for name in TREES}
    assert {name: lines for name, lines in lengths.items() if lines >= MOST_LINES} == {}


def test_tests_wait_for_a_condition_or_say_why_a_time_has_to_pass():
    """``until`` and ``pass_time`` of tests.support.waiting; the bench itself measures time and is not bound."""
    bound = [name for name in TREES if name not in SLEEPS and (name in TESTS or not name.startswith("bench/"))]
    assert [f"{name}:{line}" for name in bound for line in sleeps(TREES[name])] == []


def test_a_conftest_holds_fixtures_alone():
    bodies = {name: tree.body for name, tree in TREES.items() if Path(name).name == "conftest.py"}
    found = [(name, node) for name, body in bodies.items() for node in body if isinstance(node, _DEFINITIONS)]
    assert len(found) > 30
    assert [
        (name, node.name) for name, node in found if not any("fixture" in ast.unparse(d) for d in node.decorator_list)
    ] == []


def test_every_folder_of_tests_is_a_package():
    """Two files of one name do not clash then."""
    assert [str(path) for path in FILES if not (path.parent / "__init__.py").exists()] == []


def test_the_exceptions_are_needed():
    assert [name for name in IMPORTS if not imported(TREES[name]) & MODULES] == []
    assert [name for name in SLEEPS if not sleeps(TREES[name])] == []
