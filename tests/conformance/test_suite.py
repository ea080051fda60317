"""The conformance suite: ours passes, each fault is caught by a named check, and what it writes can be shown."""

import concurrent.futures
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from xml.etree import ElementTree

import pytest

import receiver.conformance.checks  # noqa: F401
from receiver.commands.demo import running_receiver
from receiver.conformance import registry
from receiver.conformance.run import FAIL, UNDECIDED, run
from receiver.conformance.target import Target
from tests.support.faulty_receivers import FAULTS
from tests.support.paths import ROOT
from tests.support.proxies import tls_proxy
from tests.support.states import rows_of
from tests.support.summary import MATRIX

pytestmark = pytest.mark.slow

# What runs against every fault, besides the checks that have to catch it: quick ones, of every kind.
SAMPLE = (
    *("http.health", "http.keep-alive", "save.new", "save.newer-wins", "save.older-ignored", "load.shape", "load.iss"),
    *("delete.removes", "delete.only-named", "tenants.load", "batch.two", "replay.retry", "content.spelling"),
    *("signature.missing", "signature.unknown-key", "claims.exp-past", "tokens.not-encrypted", "times.seconds"),
)
WHOLE = ("older wins", "leaks across tenants")  # these meet all checks; with CHAOS, every fault does
LONG = re.compile(r"[A-Za-z0-9_+=-]{48,}")  # a token, a signature or a key


def quiet(_check, _result):
    pass


def checked_with(name: str, keys, folder: Path, whole: bool) -> set[str]:
    """Return the ids of the checks that fail at a receiver with the fault ``name``."""
    folder.mkdir()
    only = () if whole else (*SAMPLE, *FAULTS[name].caught_by)
    with (
        open(folder / "log", "w") as log,
        running_receiver(
            keys, folder, log, ("tests.support.faulty_receivers", name), STORAGE_LOG_LEVEL="error"
        ) as running,
    ):
        target = Target(running.url, keys, str(uuid.uuid4()), timeout=10)
        report = run(target, registry.chosen("all", only), "all", quiet)
    return {result.check.id for result in report.results if result.verdict == FAIL}


@pytest.fixture(scope="module")
def caught(request, keys, tmp_path_factory):
    """What caught each fault that a selected test asks for, as futures: two receivers at a time."""
    folder = tmp_path_factory.mktemp("faults")
    wanted = [item.callspec.params["name"] for item in request.session.items if "by_a_named_check" in item.name]
    wanted.sort(key=lambda name: name not in WHOLE)  # the long ones first
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        yield {
            name: pool.submit(checked_with, name, keys, folder / name.replace(" ", "-"), name in WHOLE or CHAOS)
            for name in wanted
        }


CHAOS = bool(os.environ.get("CHAOS"))


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_caught_by_a_named_check(caught, name, request):
    found = caught[name].result()
    missed = set(FAULTS[name].caught_by) - found
    request.config.stash[MATRIX].append((name, FAULTS[name].caught_by, found))
    print(f"{name}: {', '.join(sorted(found))}")
    assert not missed


def test_no_fault_names_a_check_that_is_none():
    assert len(FAULTS) >= 30
    for fault in FAULTS.values():
        assert set(fault.caught_by) <= set(registry.CHECKS), fault.name


@pytest.fixture
def conformance(keys, tmp_path):
    """Return a function that runs the command against a URL, with further words."""
    (tmp_path / "platform.json").write_text(json.dumps(keys.platform.private()))
    (tmp_path / "receiver.json").write_text(json.dumps(keys.receiver.public()))

    def command(url, *words, **environment):
        base = [
            "--url",
            url,
            "--platform-key",
            tmp_path / "platform.json",
            "--receiver-key",
            tmp_path / "receiver.json",
        ]
        return subprocess.run(
            [sys.executable, "-m", "receiver", "conformance", *base, *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | environment,
        )

    return command


@pytest.fixture(params=["sqlite", "file", "postgresql", "mariadb"])
def served(request, keys, tmp_path):
    """A receiver with a store of each kind."""
    folder = tmp_path / "served"
    folder.mkdir()
    place = {"sqlite": lambda: f"sqlite:///{folder}/states.db", "file": lambda: f"file://{folder}/states"}
    if request.param in place:
        url = place[request.param]()
    else:
        server = request.getfixturevalue(request.param)
        url = server.url(server.new_database())
    with (
        open(folder / "log", "w") as log,
        running_receiver(keys, folder, log, DATABASE_URL=url, STORAGE_LOG_LEVEL="error") as running,
    ):
        yield running


def test_ours_passes_every_check_on_every_store_within_a_minute_and_keeps_nothing(served, conformance, tmp_path):
    done = conformance(
        served.url,
        "--level",
        "all",
        "--json",
        tmp_path / "r.json",
        "--junit",
        tmp_path / "r.xml",
        "--html",
        tmp_path / "r.html",
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    print(f"{report['counts']} in {report['seconds']} s")
    assert report["counts"] == {"pass": len(registry.CHECKS), "fail": 0, "not decided": 0}
    assert report["left"] == 0
    assert report["seconds"] < 60
    suites = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == (str(len(registry.CHECKS)), "0", "0")
    for name in ("r.json", "r.xml", "r.html"):
        assert not LONG.findall((tmp_path / name).read_text()), name
    if served.store.endswith(".db"):
        assert rows_of(tmp_path / "served/states.db")["states"] == []


def test_the_table_of_checks_is_the_declared_one():
    assert registry.markdown_table() == (ROOT / "receiver/conformance/CHECKS.md").read_text()
    assert len(registry.CHECKS) >= 90
    for check in registry.CHECKS.values():
        assert check.sentence.endswith(".") and check.source and "|" not in check.sentence + check.source, check.id
        assert re.fullmatch(r"[a-z]+\.[a-z0-9-]+", check.id)


def test_the_suite_imports_nothing_but_the_mock_platform():
    for path in (ROOT / "receiver/conformance").rglob("*.py"):
        for imported in re.findall(r"^\s*(?:from|import) (receiver[\w.]*)", path.read_text(), re.MULTILINE):
            assert imported.startswith(("receiver.mock_platform", "receiver.conformance")), (path, imported)


def test_a_receiver_that_is_not_there_is_told_in_one_line(conformance):
    done = conformance("http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: http://127.0.0.1:9 cannot be reached: [Errno 111] Connection refused"]


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "nothing.like-it"],
        ["--level", "perhaps"],
        ["--tenant", "x"],
        ["--url", "ftp://x"],
        ["--url", "http://x?a"],
        ["--platform-key", "/dev/null"],
        ["--ca", "README.md"],
        ["--html", "/no/such/folder/x.html"],
        ["--level", "must", "--only", "times.ticks"],
    ],
)
def test_wrong_words_end_with_2(conformance, words):
    done = conformance("http://127.0.0.1:9", *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_other_keys_than_the_receivers_leave_nothing_passed_that_needs_them(conformance, keys, foreign_keys, tmp_path):
    with running_receiver(foreign_keys, tmp_path) as running:
        done = conformance(running.url, "--json", tmp_path / "r.json", "--only", "claims", "--only", "save.*")
    assert done.returncode == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counts"]["pass"] < 3
    assert report["counts"][UNDECIDED] > 20
    assert "does not conform" in done.stdout and "A check that is not decided has not passed." in done.stdout


def test_it_checks_a_receiver_that_serves_one_tenant_alone(conformance, keys, tenant, tmp_path):
    with running_receiver(keys, tmp_path, STORAGE_TENANTS=tenant) as running:
        done = conformance(running.url, "--tenant", tenant, "--only", "tenants", "--only", "save.new")
        assert done.returncode == 0, done.stdout


def test_an_interrupted_run_cleans_up_and_says_so(conformance, keys, tmp_path):
    with running_receiver(keys, tmp_path) as running:
        base = ["--url", running.url, "--platform-key", tmp_path / "platform.json"]
        base += ["--receiver-key", tmp_path / "receiver.json"]
        command = [sys.executable, "-m", "receiver", "conformance", *base]
        unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=unbuffered) as process:
            for line in process.stdout:
                if "save.older-ignored" in line:
                    process.terminate()
                    break
            rest = process.stdout.read()
        assert process.returncode == 1
        assert "the run was interrupted" in rest
        assert rows_of(tmp_path / "states.db")["states"] == []


def test_it_goes_through_tls_with_a_client_certificate_and_a_prefix(conformance, keys, tmp_path):
    with running_receiver(keys, tmp_path) as running, tls_proxy(running.url, "/flow", tmp_path) as url:
        shown = ["--ca", tmp_path / "authority.pem"]
        shown += ["--client-cert", tmp_path / "client.pem", "--client-key", tmp_path / "client.key"]
        groups = [word for group in ("save", "load", "tenants", "claims.path-o*") for word in ("--only", group)]
        done = conformance(url, *shown, *groups, "--only", "framing.length", "--sign-path", "plain")
        assert done.returncode == 0, done.stdout
        done = conformance(url, *shown, "--only", "save.new")  # signed with the prefix, which the receiver never sees
        assert done.returncode == 1
        assert "401 came" in done.stdout
        for words in ([], shown[:2]):
            done = conformance(url, *words, "--only", "save.new")
            assert done.returncode == 1
            assert re.fullmatch(
                r"Error: https://\S+ cannot be reached: .*(certificate|CERTIFICATE|EOF).*\n", done.stderr
            ), done.stderr


@pytest.mark.parametrize(
    ("url", "how", "sent", "signed"),
    [
        ("http://x", "sent", "", "/api/x"),
        ("http://x/", "sent", "", "/api/x"),
        ("http://x/a/b/", "sent", "/a/b", "/a/b/api/x"),
        ("http://x/a", "plain", "/a", "/api/x"),
        ("http://x/a/api/storage/1", "sent", "/a", "/a/api/x"),
    ],
)
def test_what_is_sent_and_signed_where_the_url_has_a_path(keys, url, how, sent, signed):
    target = Target(url, keys, "t", how)
    assert (target.prefix, target.signed_path("/api/x")) == (sent, signed)


def test_without_a_url_it_starts_a_receiver_of_its_own():
    command = [sys.executable, "-m", "receiver", "conformance", "--only", "save.new"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a receiver answers at http://127.0.0.1:" in done.stdout and "1 pass, 0 fail, 0 not decided" in done.stdout
    listed = subprocess.run(
        [*command[:4], "--list", "--level", "must"], capture_output=True, text=True, check=False
    ).stdout
    assert len(listed.splitlines()) == 1 + len(registry.chosen("must"))
