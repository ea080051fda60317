"""What code and tests cite is in the manual: sections of the protocol, rows of the cases, and the tests that pages name."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__)
ROOT = next(folder for folder in HERE.parents if (folder / "setup.cfg").exists())
DOCS = ROOT / "docs"
PROTOCOL_PAGE = (DOCS / "reference/protocol.md").read_text()
CASES_PAGE = (DOCS / "reference/cases.md").read_text()
CHECKS_PAGE = (ROOT / "receiver/conformance/CHECKS.md").read_text()
CODE = sorted(path for folder in ("receiver", "tests") for path in (ROOT / folder).rglob("*.py") if path != HERE)
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
DECISIONS = sorted((DOCS / "explanation/decisions").glob("*.md"))

SECTIONS = set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?) \S", PROTOCOL_PAGE, re.MULTILINE))
ROWS = re.findall(r"^\| ([A-I]\d\d) \| (.*) \|$", CASES_PAGE, re.MULTILINE)

_LIST = r"{0}(?:(?:, | and ){0})*"
_SECTIONS = re.compile(r"[Pp]rotocol, sections? (" + _LIST.format(r"\d+(?:\.\d+)?") + ")")
_CASES = re.compile(r"\b[Cc]ases? (" + _LIST.format(r"[A-I]\d\d?\b") + ")")
_LEFTOVER = re.compile(r"\bPROTOCOL\b|\bCASES\.md|\bCASES, ")
_REFERENCE = r"(?:[A-I]\d\d|protocol, sections? \d[\d. and]*|RFC \d+(?: [\d.]+)?)"
_NAMED_TEST = re.compile(r"`(test_\w+\.py)(?:::(test_\w+))?`")


def faults_in(text: str) -> Iterator[str]:
    """Yield each citation in ``text`` that the manual does not resolve, and what is left of the old way to cite."""
    flat = re.sub(r"\s+#?\s*", " ", text)  # a citation may go on in the next line
    for found in _SECTIONS.findall(flat):
        yield from (f"protocol, section {one}" for one in re.findall(r"\d+(?:\.\d+)?", found) if one not in SECTIONS)
    known = {id for id, _ in ROWS}
    for found in _CASES.findall(flat):
        yield from (f"case {one}" for one in re.findall(r"[A-I]\d+", found) if one not in known)
    yield from _LEFTOVER.findall(flat)


def marks_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (case, "file::test") for each mark ``case`` of a test in the file at ``path``."""
    for node in ast.walk(ast.parse(path.read_text())):
        for decorator in getattr(node, "decorator_list", ()):
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.case":
                yield from ((ast.literal_eval(one), f"{path.name}::{node.name}") for one in decorator.args)


def names_by_file() -> dict[str, set[str]]:
    """Return the names of the tests in each file by its base name: in which folder it lies does not matter."""
    found = defaultdict(set)
    for path in TESTS:
        found[path.name] |= set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    return found


def missing_tests(page: str) -> Iterator[str]:
    """Yield each test that ``page`` names and that is not there, with the file where it is now, if any."""
    files = names_by_file()
    for file, name in _NAMED_TEST.findall(page):
        if file not in files or (name and name not in files[file]):
            now = [other for other, names in files.items() if name and name in names]
            yield f"{file}::{name}: " + (f"it is now in {', '.join(now)}" if now else "there is no such test")


def test_every_citation_resolves():
    faults = {str(path.relative_to(ROOT)): [*faults_in(path.read_text())] for path in (*CODE, *DOCS.rglob("*.md"))}
    assert {path: found for path, found in faults.items() if found} == {}
    assert sum(len(_SECTIONS.findall(path.read_text())) for path in CODE) > 100


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("(protocol, section 3.99)", "protocol, section 3.99"),
        ("Protocol, sections 3.2, 77 and 5.", "protocol, section 77"),
        ("as protocol,\n    section 0.1 has it", "protocol, section 0.1"),
        ("# a comment of case\n    # B99", "case B99"),
        ("cases A01, A05 and A06", "case A05"),
        ("case A9", "case A9"),
        ('(PROTOCOL, "Errors")', "PROTOCOL"),
        ("see CASES.md", "CASES.md"),
    ],
)
def test_a_citation_that_does_not_resolve_is_found(text, fault):
    assert [*faults_in(text)] == [fault]


def test_the_sections_of_the_protocol_are_numbered_in_order():
    numbers = [tuple(map(int, one.split("."))) for one in re.findall(r"^#+ (\d[\d.]*) ", PROTOCOL_PAGE, re.MULTILINE)]
    before = (0,)
    for number in numbers:
        assert number in {(before[0] + 1,), (*before[:1], before[1] + 1 if len(before) > 1 else 1)}, number
        before = number
    headings = re.findall(r"^#{2,} (.*)", PROTOCOL_PAGE, re.MULTILINE)
    assert len(headings) == len(numbers), "a heading without a number"
    assert [one for one in numbers if one[0] == 10 and len(one) > 1] == [(10, promise) for promise in range(1, 8)]


def test_each_case_has_one_row_and_every_mark_has_its_case():
    assert [id for id, count in Counter(id for id, _ in ROWS).items() if count > 1] == []
    assert [id for id, _ in ROWS] == re.findall(r"^\| ([A-I]\d+) ", CASES_PAGE, re.MULTILINE)
    rows = dict(ROWS)
    for path in TESTS:
        for case, test in marks_of(path):
            assert case in rows, f"{test} has the mark of {case}, which is no case"
            assert f"`{test}`" in rows[case], f"{test} has the mark of {case}, whose row does not name it"


def test_each_case_says_which_tests_try_it_or_that_none_does():
    for id, row in ROWS:
        last = row.split(" | ")[-1]
        assert _NAMED_TEST.search(last) or last.startswith("no test"), id


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page):
    assert [*missing_tests(page.read_text())] == []


def test_a_test_that_does_not_exist_is_found():
    here = HERE.name
    assert [*missing_tests(f"`{here}::test_a_test_that_does_not_exist_is_found` `{here}`")] == []
    assert [*missing_tests(f"`{here}::test_nothing`")] == [f"{here}::test_nothing: there is no such test"]
    assert [*missing_tests("`test_gone.py`")] == ["test_gone.py::: there is no such test"]
    moved = [*missing_tests("`test_gone.py::test_every_citation_resolves`")]
    assert moved == [f"test_gone.py::test_every_citation_resolves: it is now in {here}"]


def test_each_check_of_the_conformance_suite_cites_what_can_be_found():
    sources = re.findall(r"^\| `[\w.-]+` \| (?:must|should) \| .* \| ([^|]+) \|$", CHECKS_PAGE, re.MULTILINE)
    assert len(sources) > 200
    for source in sources:
        assert re.fullmatch(f"{_REFERENCE}(?:[,;] {_REFERENCE})*", source), source
        assert set(re.findall(r"\b[A-I]\d\d\b", source)) <= {id for id, _ in ROWS}, source
        assert [*faults_in(source)] == []


def test_each_decision_is_recorded_in_the_same_order():
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    assert len(DECISIONS) >= 5
    for path in DECISIONS:
        headings = re.findall(r"^## (.*)", path.read_text(), re.MULTILINE)
        assert headings == ["Status", "Context", "Decision", "Consequences", "What was measured"], path.name


def test_prose_of_these_pages_is_narrow():
    pages = [DOCS / "reference/protocol.md", DOCS / "reference/cases.md", *DECISIONS]
    for page in (*pages, DOCS / "explanation/security.md", DOCS / "explanation/reliability.md"):
        wide = [line for line in page.read_text().splitlines() if len(line) > 120 and not line.startswith("|")]
        assert wide == [], page.name
