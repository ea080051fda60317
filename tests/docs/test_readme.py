"""The README says what is: its table, its commands, its files and its figures."""

import ast
import re
from pathlib import Path

import click
import pytest

from receiver import problems
from receiver.commands import cli
from receiver.commands.config import markdown_table
from receiver.routes import calls
from tests.docs.test_platform_readme import COMMANDS as RUN_WITH_A_PLATFORM

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
CI = (ROOT / ".ci/run").read_text()
DOCKER = (ROOT / "deploy/docker/README.md").read_text()  # its blocks are run by tests/deploy/image_checks.py
TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
COMMANDS = re.findall(
    r"^(?!#)(\S.*?)(?: +#.*)?$", "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)), re.MULTILINE
)


def test_the_settings_table_is_the_declared_one():
    assert markdown_table() in README


def test_every_target_that_is_named_exists_and_tells_what_it_does():
    for page in (README, (ROOT / "keys/README.md").read_text(), (ROOT / "deploy/README.md").read_text()):
        for target in re.findall(r"(?:`|^)make ([a-z]+)", page, re.MULTILINE):
            assert re.search(rf"^{target}:.*  ## \w", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_a_code_block_is_run_by_a_test_or_by_the_continuous_integration(command):
    words = [word for word in command.split()[1:] if not word.startswith('"')]
    in_a_test = "receiver(" + ", ".join(f'"{word}"' for word in words)
    in_a_test = command.startswith(".venv/bin/receiver ") and in_a_test in TESTS
    assert command in CI or in_a_test or command in RUN_WITH_A_PLATFORM or command in DOCKER


@pytest.mark.parametrize(
    "words",
    sorted(
        set(
            re.findall(
                r"receiver ((?:serve|keys|config|doctor|health|store|demo|platform|conformance)(?: [a-z]+)?)", README
            )
        )
    ),
)
def test_every_command_line_that_is_named_exists(words):
    command = cli
    for word in words.split():
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), word)
            assert command, words
    assert command.help


def test_every_file_that_is_named_exists():
    named = set(re.findall(r"`((?:receiver|tests|deploy|keys|requirements)[\w/.]*\.\w+)`", README))
    assert len(named) > 15
    for path in named:
        assert (ROOT / path).exists(), path


def test_every_module_is_part_of_the_journey_or_of_what_it_names():
    journey = README[README.index("## A request's journey") : README.index("## The calls")]
    supporting = {"__init__", "__main__", "files"}  # configuration, not a request's way
    for path in (ROOT / "receiver").glob("*.py"):
        assert path.stem in supporting or f"receiver/{path.name}" in journey, path


def test_every_status_of_a_problem_is_in_the_table():
    answers = README[README.index("## The calls") : README.index("## Configuration")]
    kinds = [kind for kind in vars(problems).values() if isinstance(kind, type) and issubclass(kind, problems.Problem)]
    for status in {kind.status for kind in kinds}:
        assert re.search(rf"^\| [\d, ]*{status}[\d, ]* \|", answers, re.MULTILINE), status


def test_the_calls_are_those_of_the_application(app):
    rules = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith(calls.name)}
    for rule in rules:
        path = rule.removeprefix("/api/storage/1").replace("<", "{").replace(">", "}")
        assert f"{path}`" in README


def test_no_top_level_name_is_missing():
    for name in ("setup.cfg", "README.md", "receiver", "keys", "tests", "deploy", "Makefile", "LICENSE"):
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
