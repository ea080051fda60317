"""The manual: its generated parts are what the code says, what it names exists, and it builds without a warning."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from urllib.parse import quote

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families

from docs import check_site, generate
from docs.generate import commands, errors, faults, logs, metrics, settings, sources
from docs.generate.sources import PACKAGE, ROOT, cli, declared_settings
from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from tests.chaos import keep
from tests.support import servers
from tests.support.browsers import chromium

DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
REFERENCE = generate.pages()
SPHINX = ROOT / ".venv-docs/bin/sphinx-build"
# The folders that issue 14 moves modules into; the pages that name modules use these names already.


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_the_generated_parts_of_a_page_are_what_the_code_says(page):
    text = page.read_text()
    assert generate.renewed(text) == text, "run make reference"


def test_every_generated_part_is_in_a_page():
    named = [name for page in REFERENCE for name in generate.names_in(page.read_text())]
    assert sorted(named) == sorted(generate.PARTS)


def test_every_setting_command_metric_field_message_status_and_reason_has_its_row():
    text = "".join(page.read_text() for page in REFERENCE)
    for field in declared_settings.declared():
        assert f"| `{field.metadata['name']}` |" in text
    for path, _ in commands.leaves():
        assert f"### receiver {path}\n" in text
    for name in metrics.names():
        assert f"| `{name}` |" in text
    for name in logs.written_fields():
        assert f"| `{name}` |" in text
    for status in {kind.status for kind in errors.kinds()}:
        assert f"### {status} " in text


@pytest.mark.parametrize(
    ("described", "name", "part"),
    [
        (settings.SUBJECTS, "Store", "settings"),
        (commands.STATUS, "store purge", "commands"),
        (metrics.REQUESTS, "refusals", "metrics of requests"),
        (metrics.RECEIVER, "ready", "metrics of the receiver"),
        (logs.FIELDS, "ignored", "log fields"),
        (logs.EVENTS, "listening", "log events"),
        (errors.STATUSES, 401, "errors"),
        (errors.REASONS, "path", "reasons"),
    ],
    ids=lambda one: one if isinstance(one, str) else None,
)
def test_what_is_not_described_stops_the_generator(monkeypatch, described, name, part):
    monkeypatch.delitem(described, name)
    with pytest.raises(LookupError, match="without a description"):
        generate.PARTS[part]()


def test_what_is_described_and_gone_stops_the_generator(monkeypatch):
    monkeypatch.setitem(errors.REASONS, "no_such_reason", {"status": "", "meaning": "", "fix": ""})
    with pytest.raises(LookupError, match=r"gone \['no_such_reason'\]"):
        generate.PARTS["reasons"]()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return what a receiver that saved, loaded and refused exports."""
    folder, keys = tmp_path_factory.mktemp("served"), new_store()
    environment = {"STORAGE_ADMIN_BIND": "127.0.0.1:0", "STORAGE_RUN_DIR": str(folder)}
    with open(folder / "log", "w") as file, running_receiver(keys, folder, file, **environment) as running:
        client = Client(running.url, "00000000-0000-4000-8000-000000000001", keys)
        state = FlowRun(client.tenant).state()
        assert client.save(state).status == 204
        assert client.load(state["id"]).status == 200
        assert client.call("GET", f"/api/storage/1/states/{client.tenant}/{client.tenant}", headers={}).status == 401
        client.close()
        with urllib.request.urlopen(f"{running.admin}/metrics") as answer:
            return answer.read().decode()


def test_what_a_receiver_exports_is_described_with_its_labels(exported):
    page = (generate.REFERENCE / "metrics.md").read_text()
    families = list(text_string_to_metric_families(exported))
    assert len(families) > 25
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        (row,) = re.findall(rf"^\| `{name}` \| {family.type} \| ([^|]*) \|", page, re.MULTILINE)
        for sample in family.samples:
            assert {f"`{label}`" for label in sample.labels if label != "le"} <= set(row.split(", ")), name


def test_every_field_of_a_request_in_the_log_is_described(caplog):
    trace = sources.tracing.begin(None)
    trace.reason, trace.cause, trace.effect = "replay", "a cause", sources.Effect(stored=1, jti_was="new")
    with caplog.at_level("INFO", logger="receiver"):
        sources.logs.log_request(sources.logs.RequestLine("127.0.0.1", "POST", "/"), trace, 401)
    line = json.loads(sources.logs.JsonFormatter().format(caplog.records[-1]))
    assert line.keys() >= {"message", "request", "tenant", "stored", "jti", "reason", "cause"}
    assert line.keys() <= logs.FIELDS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
class TestEveryPage:
    def test_names_only_settings_that_exist(self, page):
        names = {field.metadata["name"] for field in declared_settings.declared()}
        for name in set(re.findall(r"\bSTORAGE_[A-Z_]*[A-Z]\b(?!_)", page.read_text())):
            assert name.removesuffix("_FILE") in names or re.match(r"STORAGE_(TENANT|REGION)$", name), name

    def test_names_only_metrics_that_exist(self, page):
        known = metrics.names()
        for name in set(re.findall(r"\breceiver_[a-z]+_[a-z_]+(?=[`{ )\[<>])", page.read_text())):
            assert re.sub("_(bucket|sum|count)$", "", name) in known, name

    def test_names_only_commands_and_options_that_exist(self, page):
        text = page.read_text()
        blocks = "\n".join(re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))
        lines = re.findall(r"^ *(?:\S*bin/)?receiver ([a-z].*)", blocks, re.MULTILINE)
        for line in [*lines, *re.findall(r"`(?:\S*bin/)?receiver ([a-z][^`\n]*)`", text)]:
            command, words = cli, line.split()
            while isinstance(command, click.Group) and words and re.fullmatch("[a-z]+", words[0]):
                named = command.get_command(click.Context(command), words[0])
                assert named, f"receiver {line}"
                command = named
                words = words[1:]
            options = {name for one in command.params for name in one.opts} | {"--help", "--version"}
            for word in words:
                if word.startswith("#"):
                    break
                if word.startswith("--") and len(word) > 2:
                    assert word.partition("=")[0].rstrip(".,;:)") in options, f"receiver {line}"

    def test_names_only_targets_that_exist(self, page):
        makefile = (ROOT / "Makefile").read_text()
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

    def test_names_only_files_that_exist(self, page):
        for path in set(re.findall(r"`((?:receiver|tests|deploy|keys)/[\w/.-]*)`", page.read_text())):
            assert (ROOT / path).exists(), path


def test_every_module_is_part_of_a_requests_journey_or_of_a_folder_that_it_names():
    journey = (DOCS / "explanation/a-requests-journey.md").read_text()
    for path in PACKAGE.rglob("*.py"):
        folders = {
            f"{path.relative_to(ROOT).parents[depth]}/" for depth in range(len(path.relative_to(ROOT).parts) - 2)
        }
        is_named = str(path.relative_to(ROOT)) in journey or any(f"`{folder}`" in journey for folder in folders)
        assert is_named or path.stem in ("__init__", "__main__"), path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the site, built as make docs does."""
    if not SPHINX.exists() and not os.environ.get("CI"):
        pytest.skip("needs .venv-docs, which make docs makes")
    folder = tmp_path_factory.mktemp("site").resolve()
    command = [SPHINX, "--quiet", "--fail-on-warning", "--keep-going", "-d", folder / "doctrees", DOCS, folder / "site"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "site"


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere_and_every_link_leads_somewhere(site):
    assert list(check_site.faults(site)) == []
    for page in PAGES:
        assert (site / page.relative_to(DOCS).with_suffix(".html")).exists()


@pytest.mark.slow
@pytest.mark.skipif(not servers.program("chromium") and not os.environ.get("CI"), reason="needs Chromium")
@pytest.mark.parametrize(
    ("question", "page"),
    [
        ("how do I rotate the receiver key", "Rotate the receiver key"),
        ("what does older mean in the log", "Logs"),
        ("how do I restore", "Back up and restore"),
        ("why 401", "401"),
        ("how do I move to PostgreSQL", "PostgreSQL"),
    ],
)
def test_the_search_answers_what_people_ask_by_the_first_page(site, tmp_path, question, page):
    url = f"{(site / 'search.html').as_uri()}?q={quote(question)}"
    results = re.findall(
        r'<li class="kind-[^>]*>.*?<a [^>]*>(.*?)</a>', chromium(tmp_path, url, "--dump-dom"), re.DOTALL
    )
    assert page in results[0]


def test_no_page_has_notes_that_only_another_tool_shows():
    for page in PAGES:
        assert not re.search(r"^ *(!!!|\?\?\?) ", page.read_text(), re.MULTILINE), page


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ('<script src="https://cdn.example.com/a.js"></script>', "loads https://cdn.example.com/a.js from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example.com/a.css">', "from elsewhere"),
        ('<img src="http://example.com/a.png">', "from elsewhere"),
        ('<p style="background: url(https://example.com/a.png)">', "from elsewhere"),
        ('<img src="a.png">', "loads a.png, which is missing"),
        ('<a href="other.html">', "links to other.html, which is missing"),
        ('<a href="#nowhere">', "links to #nowhere, which has no such anchor"),
        ('<a href="https://example.com/"><p id="here"><a href="#here">', None),
    ],
)
def test_the_check_of_the_site_finds(tmp_path, page, fault):
    (tmp_path / "index.html").write_text(page)
    found = list(check_site.faults(tmp_path))
    assert found == [] if fault is None else (len(found) == 1 and fault in found[0]), found


def test_the_check_of_the_site_reads_style_sheets_and_pictures(tmp_path):
    (tmp_path / "index.html").write_text("")
    (tmp_path / "a.css").write_text("@import 'https://example.com/b.css'; p { background: url(//example.com/a.png) }")
    (tmp_path / "a.svg").write_text('<svg><image href="https://example.com/a.png"/></svg>')
    assert len(list(check_site.faults(tmp_path))) == 3


def test_the_page_of_faults_has_those_that_the_harness_injects():
    assert faults.results()["faults"] == keep.described(), (
        "run .venv/bin/python -m tests.chaos.keep, then make reference"
    )


def test_an_old_page_fails_the_comparison(tmp_path, monkeypatch, capsys):
    from docs.generate import __main__ as program

    (tmp_path / "errors.md").write_text("<!-- generated: reasons -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(generate, "REFERENCE", tmp_path)
    monkeypatch.setattr(generate, "_ELSEWHERE", ())
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    assert program.main() == 1
    assert "run make reference" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["generate"])
    assert program.main() == 0
    assert "`store_unavailable`" in (tmp_path / "errors.md").read_text()
