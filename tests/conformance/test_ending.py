"""What a run says first and leaves last: the receiver's clock, what a refusal says, and no state in the store."""

import contextlib
import email.utils
import http.server
import json
import threading
import time
import uuid
from xml.etree import ElementTree

import click
import pytest

import receiver.conformance.checks  # noqa: F401 - declares them
from receiver.commands.demo import running_receiver
from receiver.conformance import cleaning, files, registry, screen
from receiver.conformance.answers import described
from receiver.conformance.clock import Clock
from receiver.conformance.registry import Check
from receiver.conformance.run import FAIL, UNDECIDED, run
from receiver.conformance.target import Target
from receiver.conformance.trial import Trial
from receiver.mock_platform.client import Answer
from tests.support.states import rows_of

pytestmark = pytest.mark.slow


def quiet(_check, _result):
    pass


def check_of(function):
    return Check("test.check", "should", "A check of the tests.", "here", function)


class Stub(http.server.BaseHTTPRequestHandler):
    """A receiver that keeps ids alone, and refuses what its server's ``refuse`` (ids → status) does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer(200 if self.path.rpartition("/")[2] in self.server.ids | {"health"} else 404)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.server.saved)

    def do_DELETE(self):
        ids = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.deletes.append(ids)
        status = self.server.refuse(ids)
        if status is None:
            self.close_connection = True
            return
        if status == 204:
            self.server.ids -= set(ids) - self.server.kept
        self._answer(status)

    def _answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def date_time_string(self, timestamp=None):
        return email.utils.formatdate(time.time() + self.server.ahead, usegmt=True)

    def log_message(self, *_):
        pass


@pytest.fixture
def stub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        server.daemon_threads = True
        server.ids, server.kept, server.deletes, server.refuse, server.ahead = set(), set(), [], lambda _: 204, 0
        server.saved = 204
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def target(stub, keys, tenant):
    return Target(f"http://127.0.0.1:{stub.server_port}", keys, tenant, timeout=1)


def made_at(stub, tenant, count):
    ids = [str(uuid.uuid4()) for _ in range(count)]
    stub.ids |= set(ids)
    return [(tenant, id) for id in ids]


@pytest.mark.parametrize("most", [1, 3, 50, 200])
def test_deletions_are_halved_until_the_receiver_takes_them(stub, target, tenant, most):
    stub.refuse = lambda ids: 413 if len(ids) > most else 204
    left = cleaning.clean(target, made_at(stub, tenant, 230))
    assert (left.states, stub.ids) == ([], set())
    refused = [ids for ids in stub.deletes if len(ids) > most]
    assert len(refused) <= 8  # what was too much once is not tried again


def test_one_state_that_cannot_be_deleted_does_not_keep_the_others(stub, target, tenant):
    made = made_at(stub, tenant, 120)
    bad = made[70][1]
    stub.refuse = lambda ids: 500 if bad in ids else 204
    left = cleaning.clean(target, made)
    assert left.states == [(tenant, bad)]
    assert stub.ids == {bad}
    assert left.message() == (
        f"1 state may be left in the store (a DELETE was answered 500), tenant/id: {tenant}/{bad}"
    )


def test_a_state_that_stays_though_its_delete_was_answered_204_is_reported(stub, target, tenant):
    made = made_at(stub, tenant, 30)
    stub.kept = {made[20][1]}
    left = cleaning.clean(target, made)
    assert left.states == [made[20]]
    assert "the state is still there" in left.message()


def test_a_receiver_that_says_503_for_a_while_is_asked_again(stub, target, tenant):
    stub.refuse = lambda _ids: 503 if len(stub.deletes) < 3 else 204
    assert cleaning.clean(target, made_at(stub, tenant, 5)).states == []
    assert stub.ids == set()


def test_a_receiver_that_answers_no_more_costs_little_time_and_all_is_reported(stub, target, tenant):
    stub.refuse = lambda _ids: None
    made = made_at(stub, tenant, 500)
    began = time.monotonic()
    left = cleaning.clean(target, made)
    assert time.monotonic() - began < 15
    assert sorted(left.states) == sorted(made)
    assert "500 states may be left in the store (no answer came to a DELETE)" in left.message()
    assert left.message().endswith("and 480 more")


def test_cleaning_ends_when_its_time_is_over(stub, target, tenant):
    stub.refuse = lambda ids: 413 if len(ids) > 1 else 204
    left = cleaning.clean(target, made_at(stub, tenant, 300), seconds=0)
    assert len(left.states) == 300
    assert left.why == ["there was no time left"]


def test_a_second_interrupt_ends_the_cleaning_and_says_what_stays(stub, target, tenant, monkeypatch):
    made = made_at(stub, tenant, 450)
    whole, calls = cleaning._Cleaner._delete, []

    def delete(self, ids):
        calls.append(ids)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, ids)

    monkeypatch.setattr(cleaning._Cleaner, "_delete", delete)
    other = str(uuid.uuid4())
    left = cleaning.clean(target, [*made, *made_at(stub, other, 3)])
    assert len(left.states) == len(stub.ids) == 253
    assert left.why == ["the run was interrupted again"]


def test_a_second_tenant_that_is_not_served_has_left_nothing(stub, target, tenant):
    other = str(uuid.uuid4())
    made = made_at(stub, tenant, 2)
    theirs = [(other, str(uuid.uuid4()))]
    stub.refuse = lambda ids: 401 if ids == [theirs[0][1]] else 204
    assert cleaning.clean(target, made + theirs).states == []
    stub.refuse = lambda _ids: 401  # with keys that nobody knows, it says nothing of the second tenant
    assert sorted(cleaning.clean(target, made + theirs).states) == sorted(made + theirs)


@pytest.mark.parametrize(("saved", "left"), [(401, 0), (403, 0), (503, 1), (204, 1)])
def test_a_receiver_that_refused_every_save_has_nothing_left(stub, target, saved, left):
    stub.saved, stub.refuse = saved, lambda _ids: 401
    report = run(target, [check_of(lambda trial: trial.stored())], "should", quiet)
    assert len(report.left.states) == left
    assert stub.deletes  # they were deleted all the same: a receiver may refuse a save that it stored


@pytest.fixture
def limited(keys, tmp_path):
    """A receiver that takes 7 states or ids in one request."""
    with running_receiver(keys, tmp_path, STORAGE_MAX_ITEMS="7", STORAGE_LOG_LEVEL="error") as running:
        yield Target(running.url, keys, str(uuid.uuid4()), timeout=10)


def test_a_receiver_with_small_limits_is_left_empty(limited, tmp_path):
    report = run(limited, registry.chosen("all", ["save", "batch", "tenants", "delete"]), "all", quiet)
    assert report.count(FAIL) > 0  # those with more than 7
    assert report.left.states == []
    assert rows_of(tmp_path / "states.db")["states"] == []


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_check_that_raises_leaves_nothing(limited, tmp_path, fault):
    def work(trial: Trial) -> None:
        for _ in range(20):
            trial.stored()
        raise fault

    with pytest.raises(SystemExit) if fault is SystemExit else contextlib.nullcontext():
        report = run(limited, [check_of(work)], "all", quiet)
        assert [one.verdict for one in report.results] == [UNDECIDED if fault is KeyboardInterrupt else FAIL]
        assert report.left.states == []
    assert rows_of(tmp_path / "states.db")["states"] == []


def test_an_interrupt_among_many_callers_ends_them_before_the_cleaning(limited, tmp_path, monkeypatch):
    joined = threading.Thread.join

    def interrupted(thread, timeout=None):
        if timeout is None and len(saved) < 3:
            saved.append(thread)
            while len(done) < 3:
                joined(thread, 0.001)
            raise KeyboardInterrupt
        joined(thread, timeout)

    saved, done = [], []

    def work(trial: Trial) -> None:
        def save(client):
            for _ in range(10_000):
                client.save(trial.state())
                done.append(1)

        trial.concurrently(save, save, save)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    report = run(limited, [check_of(work)], "all", quiet)
    assert [one.came for one in report.results] == ["the run was interrupted"]
    assert report.left.states == []
    after = len(done)
    assert rows_of(tmp_path / "states.db")["states"] == []
    assert len(done) == after < 10_000


@pytest.mark.parametrize(("ahead", "words"), [(-95, r"95 s behind"), (3600, r"3600 s ahead")])
def test_a_clock_that_is_off_is_said_before_all_else(stub, target, ahead, words):
    stub.ahead = ahead
    warned = []
    report = run(target, registry.chosen("all", ["http.health", "load.jti"]), "all", quiet, warned.append)
    numbers = [words.replace(str(abs(ahead)), str(abs(ahead) + more)) for more in (-1, 0, 1)]
    assert report.clock.words in numbers
    assert f"The receiver's clock is {report.clock.words}" in warned[0]
    assert f"{'ahead of' if ahead > 0 else 'behind'} this machine's, more than the 30 s" in warned[0]
    assert "the likely cause of the failures" in report.warning
    assert click.unstyle(screen.summary(report)).splitlines()[1] == report.warning
    assert json.loads(files.as_json(report))["warning"] == report.warning
    page = files.as_html(report)
    assert page.index('class="warning"') < page.index("Does not conform</h1>")
    notes = {note.text for note in ElementTree.fromstring(files.as_junit(report)).iter("system-err")}
    assert notes == {report.warning}


@pytest.mark.parametrize(
    ("ahead", "fails", "says"),
    [
        (None, True, ""),
        (1.5, True, ""),
        (-12, True, "12 s behind this machine's; a receiver that allows no skew"),
        (12, False, ""),
        (31, False, "real requests may be refused"),
    ],
)
def test_what_is_said_of_a_clock(ahead, fails, says):
    warning = Clock(ahead).warning(fails)
    assert says in warning
    assert bool(warning) == bool(says)


def test_a_right_clock_is_not_mentioned(stub, target):
    warned = []
    report = run(target, registry.chosen("all", ["http.health", "load.jti"]), "all", quiet, warned.append)
    assert not report.conforms
    assert (warned, report.warning) == ([], "")


PROBLEM = {"action": None, "kind": "service", "message": "item 0: flow is missing", "statusCode": 400, "uri": "/x"}


@pytest.mark.parametrize(
    ("status", "kind", "body", "says"),
    [
        (400, "application/json", json.dumps(PROBLEM), "400 came: item 0: flow is missing"),
        (401, "", "", "401 came, without a body"),
        (204, "", "", "204 came"),
        (200, "application/json", '{"token": "' + "a" * 900 + '"}', "200 came with a JSON object of token"),
        (500, "application/json", "{}", "500 came with an empty JSON object"),
        (500, "application/json", '[{"a": 1}]', "500 came with a JSON array"),
        (
            502,
            "text/html; charset=utf-8",
            "<html><h1>Bad  Gateway</h1>",
            "502 came with 27 bytes of text/html: Bad Gateway",
        ),
        (500, "application/json", '{"message": "half', '500 came with 17 bytes of application/json: {"message": "half'),
        (400, "application/json", json.dumps({"message": "a\n" + "b " * 500}), "400 came: a b"),
        (400, "application/json", "[" * 200_000, "400 came with 200,000 bytes of application/json: [["),
    ],
)
def test_a_refusal_is_told_by_status_and_message(status, kind, body, says):
    line = described(Answer(status, {"content-type": kind} if kind else {}, body.encode(), 0.1))
    assert line.startswith(says)
    assert len(line) < 300 and "\n" not in line


def test_a_failing_check_shows_status_and_message_and_no_json(keys, tmp_path):
    program = ("tests.support.faulty_receivers", "answers 500 instead of 400")
    with running_receiver(keys, tmp_path, None, program, STORAGE_LOG_LEVEL="error") as running:
        target = Target(running.url, keys, str(uuid.uuid4()))
        report = run(target, registry.chosen("all", ["signature.key-ids-malformed", "http.no-body"]), "all", quiet)
    came = {result.check.id: result.came for result in report.results}
    assert came == {
        "signature.key-ids-malformed": "500 came: X-ManyWho-Platform-Key-ID must be the UUID of a key.",
        "http.no-body": came["http.no-body"],
    }
    assert came["http.no-body"].startswith("500 came: ")
    assert "{" not in screen.summary(report)
