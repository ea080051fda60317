"""The README and the manual say what is: their tables, their commands, their files and their links."""

import ast
import itertools
import re
import shlex
import unicodedata
from functools import cache
from pathlib import Path

import click
import pytest

import receiver.conformance.checks  # noqa: F401 - declares them
from receiver import problems
from receiver.commands import cli
from receiver.commands.config import markdown_table
from receiver.conformance import registry
from receiver.routes import calls
from tests.support import deployments, documents
from tests.support.documents import OTHER_PAGES, PAGES, README, ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
CI = (ROOT / ".ci/run").read_text()
TESTS = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("*.py")))
COMMAND_LINES = sorted(
    {
        line
        for page in (*PAGES, *OTHER_PAGES)
        for line in documents.code(page.read_text("utf-8"))
        if re.match(r"(?:\S*/)?receiver [a-z]", line)
    }
)
# What runs the commands that stand neither in .ci/run nor in a test as they are: a pattern of the whole command, the file that
# runs them or holds that they are right, and a text of that file.
RUN_BY = [
    (r"make test-fast", "Makefile", '-m "not slow"'),
    (r"make bench", "tests/bench/test_bench.py", "tests.bench"),
    (r"\.venv/bin/pre-commit install", ".ci/run", ".venv/bin/pre-commit run --all-files"),
    (r"sudo .*", "tests/deploy/conftest.py", "as the README does it"),
    (r"curl .*https?://\S+/api/storage/1/health\"?", ".ci/run", "/api/storage/1/health"),
    (
        r"\.venv/bin/receiver conformance --url \S+ --keys keys --level must",
        "tests/conformance/test_suite.py",
        '["--level", "must",',
    ),
    (r"docker (stop|rm|load|cp) .*", "tests/deploy/image_checks.py", "docker stop receiver"),
    (r"kubectl .*", "tests/deploy/test_kubernetes.py", "as the README says"),
]
# What acts on the reader's own files, machine or database, and runs nothing of ours.
READERS_OWN = [
    r"(cat|cd|chmod|chown|cp|echo|install|ln|ls|mkdir|mv|rm|tar) .*",
    r"\(umask 077; (printf|tar) .*\)",
    r"printf .* > \S+",
    r"[A-Z]+=\S+",
    r"\$EDITOR .*",
    r"(createdb|createuser|pg_dump|pg_restore|psql|mariadb|mariadb-dump|sqlite3) .*",
    r"journalctl .*",
    r"(aws|az|gcloud) .*",  # of cloud providers, which no test reaches
]
# Pages whose commands have tests of their own; the manual may repeat them.
TESTED_PAGES = {
    "deploy/docker/README.md": "tests/deploy/image_checks.py",
    "deploy/compose/README.md": "tests/deploy/test_compose.py",
    "deploy/kubernetes/README.md": "tests/deploy/test_kubernetes.py",
    "deploy/systemd/README.md": "tests/deploy/test_systemd.py",
    "deploy/monitoring/README.md": "tests/deploy/test_monitoring.py",
    "deploy/SWITCHING.md": "tests/stores/sql/test_switching.py",
}


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def plain(command: str) -> str:
    """Return ``command`` as .ci/run would write it."""
    return " ".join(command.replace('"$URL"', "http://127.0.0.1:8080").split())


@cache
def run_with_their_page() -> set[str]:
    """Return the commands of pages that have tests of their own; test_platform_readme.py runs the walk-through."""
    pages = [text_of(page) for page in TESTED_PAGES] + [documents.WALK_THROUGH.read_text("utf-8")]
    return {plain(command) for page in pages for command in documents.commands(page)}


def in_a_test(command: str) -> bool:
    """Whether a test calls the subcommand of ``command``, and tests know each of its options."""
    ours = re.fullmatch(
        r"(?:[A-Z_]+=\S* |docker exec receiver )*(?:\S*/)?receiver (.*)", re.split(r" [|>] ", command)[0]
    )
    if not ours:
        return False
    words = shlex.split(ours[1])
    names = [f'"{word}"' for word in itertools.takewhile(re.compile("[a-z][a-z-]*").fullmatch, words)]
    options = [word.split("=")[0] for word in words if word.startswith("-")]
    return f"receiver({', '.join(names)}" in TESTS and all(f'"{option}"' in TESTS for option in options)


def is_run(command: str) -> bool:
    if name := re.fullmatch(r"export ([A-Z]\w*)=.*", command):
        return not deployments.unknown({name[1]})
    return (
        command in plain(CI)
        or in_a_test(command)
        or command in run_with_their_page()
        or any(re.fullmatch(pattern, command) for pattern, _, _ in RUN_BY)
        or any(re.fullmatch(pattern, command) for pattern in READERS_OWN)
    )


def test_the_readme_is_a_face_and_not_a_manual():
    text = README.read_text()
    assert len(text.splitlines()) <= 130
    assert "`make test`" in text
    assert len(re.findall(r"^!\[[^]]{20,}\]\(docs/assets/\S+\)$", text, re.MULTILINE)) == 2  # a diagram and a picture


def test_the_figures_of_the_readme_are_those_of_their_sources():
    readme = " ".join(README.read_text().split())
    assert f"{len(registry.chosen('all'))} black-box checks" in readme
    alerts = re.findall(r"^ *- alert: ", text_of("deploy/monitoring/alerts.yaml"), re.MULTILINE)
    assert f"{len(alerts)} alert rules" in readme
    size = re.search(r"(\d+) MB, \d+ MB compressed", text_of("deploy/docker/README.md"))[1]
    assert f"Its image of {size} MB" in readme
    bench = text_of("tests/bench/results/bench.md")
    small = bench[bench.index("### 7 KB") : bench.index("### 100 KB")]
    (loads, more_loads), (saves, more_saves) = (
        re.search(rf"^\| {call} +\| SQLite +\| (\d+) .*?\|.*?\|.*?\| ([\d.]+)", small, re.MULTILINE).groups()
        for call in ("GET", "POST")
    )
    assert f"{loads} loads or {saves} saves a second" in readme
    assert f"{float(more_loads):.1f} and {float(more_saves):.1f} times as many" in readme
    start, memory = re.search(r"^\| receiver +\| ([\d.]+) .*?\|.*?\| (\d+) ", bench, re.MULTILINE).groups()
    assert f"answered {float(start):.1f} s after its start, and its idle processes took {memory} MB" in readme


def test_the_settings_table_is_the_declared_one():
    declared = set(re.findall(r"^\| `.*", markdown_table(), re.MULTILINE))
    shown = set(re.findall(r"^\| `[A-Z_]+` \|.*", text_of("docs/reference/settings.md"), re.MULTILINE))
    assert shown == declared


def test_the_readme_shows_the_defaults_of_its_settings():
    declared = dict(re.findall(r"^\| (`[A-Z_]+`) \| *(.*?) *\|", markdown_table(), re.MULTILINE))
    shown = re.findall(r"^- (`[A-Z_]+`) \((.*?)\): ", README.read_text(), re.MULTILINE)
    assert len(shown) == 5
    assert [(name, declared[name] or "none") for name, _ in shown] == shown


@pytest.mark.parametrize("page", (*PAGES, *OTHER_PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_target_that_is_named_exists_and_tells_what_it_does(page):
    for line in documents.code(page.read_text("utf-8")):
        for target in re.findall(r"^make ([a-z-]+)", line):
            assert re.search(rf"^{target}:.*  ## \w", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("command", documents.documented_commands(), ids=str)
def test_every_command_of_a_code_block_is_run_by_a_test_or_by_the_continuous_integration(command):
    text = plain(command.text)
    by_the_tutorials_test = command.page == str(documents.TUTORIAL.relative_to(ROOT))  # in test_platform_readme.py
    assert by_the_tutorials_test or is_run(text) or all(is_run(part) for part in text.split(" && "))


@pytest.mark.parametrize(("pattern", "file", "words"), RUN_BY)
def test_what_is_said_to_run_a_command_is_there(pattern, file, words):
    assert words in text_of(file)


def test_the_tests_of_a_page_read_it():
    for page, file in TESTED_PAGES.items():
        assert Path(page).name in text_of(file), page


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_that_is_named_exists_with_its_options(line):
    command, context = cli, click.Context(cli)
    line = re.split(r" [|>&;]| #|\)", line)[0].replace("…", "")
    for word in line.split()[1:]:
        if word.startswith("-"):
            option = word.split("=")[0]
            known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            assert option in known | {"--help"}, (option, line)
        elif isinstance(command, click.Group) and re.fullmatch("[a-z-]+", word):
            command = command.get_command(context, word)
            assert command, line
    assert command.help


def test_every_file_that_is_named_exists():
    for page in PAGES:
        for path in re.findall(
            r"`((?:receiver|tests|deploy|docs|keys|requirements)[\w/.-]*\.\w+)`", page.read_text("utf-8")
        ):
            module = path.startswith("receiver.") or path.endswith(".receiver")
            assert module or (ROOT / path).exists(), (page, path)


def anchor(heading: str) -> str:
    """Return the anchor that a heading gets where Markdown is rendered."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "").strip().lower()
    return "".join(
        "-" if sign == " " else sign for sign in words if sign in " -_" or unicodedata.category(sign)[0] in "LN"
    )


@cache
def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = [anchor(heading) for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE)]
    return {*headings, *re.findall(r'(?:id|name)="([^"]+)"|^\(([\w-]+)\)=', text, re.MULTILINE)}


@pytest.mark.parametrize("page", (*PAGES, *OTHER_PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match("[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not fragment or target.suffix != ".md" or fragment in anchors(target), link


def test_every_module_is_part_of_the_journey_or_of_what_it_names():
    journey = text_of("docs/explanation/a-requests-journey.md")
    old_names = {"worker.py"}
    beside = {"commands", "conformance", "doctor", "mock_platform"}  # what works on a receiver, or on a platform
    for path in sorted((ROOT / "receiver").rglob("*.py")):
        name = path.relative_to(ROOT / "receiver")
        if path.stem.startswith("__") or str(name) in old_names:
            continue
        if name.parts[0] in beside:
            assert f"`receiver/{name.parts[0]}/`" in journey, name
        elif name.parts[0] == "stores" and len(name.parts) > 2:
            assert f"`receiver/stores/{name.parts[1]}/`" in journey, name
        else:
            assert f"receiver/{name}" in journey or f"`receiver/{name.parts[0]}/`" in journey, name


def test_every_status_of_a_problem_is_on_the_page_of_errors():
    answers = text_of("docs/reference/errors.md")
    kinds = [kind for kind in vars(problems).values() if isinstance(kind, type) and issubclass(kind, problems.Problem)]
    for status in {kind.status for kind in kinds}:
        assert re.search(rf"^### {status} ", answers, re.MULTILINE), status


def test_the_calls_are_those_of_the_application(app):
    rules = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith(calls.name)}
    for rule in rules:
        path = rule.removeprefix("/api/storage/1").replace("<", "{").replace(">", "}")
        assert re.search(rf" {re.escape(path)}$", text_of("docs/reference/api.md"), re.MULTILINE), path


def test_no_top_level_name_is_missing():
    for name in (
        "setup.cfg",
        "README.md",
        "receiver",
        "keys",
        "tests",
        "deploy",
        "Makefile",
        "LICENSE",
        "docs",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ):
        assert (ROOT / name).exists()


def test_the_house_rules_on_sizes_hold():
    for path in (ROOT / "receiver").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, (path, node.name)


def test_the_mock_platform_imports_nothing_from_the_rest():
    for path in (ROOT / "receiver/mock_platform").glob("*.py"):
        for imported in re.findall(r"^\s*(?:from|import) (receiver[\w.]*)", path.read_text(), re.MULTILINE):
            assert imported.startswith("receiver.mock_platform"), (path, imported)


def test_only_the_modules_that_speak_http_import_flask():
    users = {
        str(path.relative_to(ROOT / "receiver").with_suffix(""))
        for path in (ROOT / "receiver").rglob("*.py")
        if "import flask" in path.read_text() or "from flask" in path.read_text()
    }
    assert users == {"app", "routes", "mock_platform/web"}
