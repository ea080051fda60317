"""must means what the Java service does: a receiver made like it passes all of them, and its known deviations are named."""

import json
import uuid

import pytest

import receiver.conformance.checks  # noqa: F401 - declares them
from receiver.commands.demo import running_receiver
from receiver.conformance import files, peer, registry, screen
from receiver.conformance.answers import Observation, same_meaning
from receiver.conformance.run import FAIL, PASS, run
from receiver.conformance.target import RecordingClient, Target
from receiver.mock_platform import tokens
from tests.support.java_like_receiver import jsonb

pytestmark = pytest.mark.slow

MOVED = {
    *("signature.segments", "tokens.not-encrypted", "save.empties", "delete.empty", "batch.empty"),  # issue 13
    *("save.equal-replaces", "times.microseconds", "times.offsets-same", "times.digits-same"),  # fail on its MySQL
}
ON_MYSQL_ALONE = {
    *("save.never-expires", "save.equal-replaces", "times.microseconds", "times.offsets-same", "times.digits-same"),
}


def checked(keys, folder, program, checks, **environment):
    with (
        open(folder / "log", "w") as log,
        running_receiver(keys, folder, log, program, STORAGE_LOG_LEVEL="error", **environment) as running,
    ):
        target = Target(running.url, keys, str(uuid.uuid4()), timeout=20)
        return run(target, checks, "all", lambda *_: None)


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def java_like(request, keys, tmp_path_factory):
    """The name of the database that a receiver like the Java service has, and the report of all checks against it."""
    folder = tmp_path_factory.mktemp("java-like")
    program = ("tests.support.java_like_receiver", request.param)
    return request.param, checked(keys, folder, program, registry.chosen())


def test_every_must_holds_for_a_receiver_like_the_java_service(java_like):
    _, report = java_like
    results = [result for result in report.results if result.check.level == "must"]
    assert len(results) == len(registry.chosen("must"))
    assert [(one.check.id, one.came) for one in results if one.verdict != PASS] == []
    assert report.left.states == []


def test_what_fails_for_it_are_its_known_deviations_each_with_a_remark(java_like):
    database, report = java_like
    failed = {result.check.id: result.peer for result in report.results if result.verdict != PASS}
    known = {id for deviation in peer.DEVIATIONS for id in deviation.checks}
    assert set(failed) == (known if database == "mysql" else known - ON_MYSQL_ALONE)
    assert [id for id, remark in failed.items() if not remark] == []
    assert report.like_the_peer() == len(failed)


def test_the_reports_say_what_the_java_service_does_too(java_like):
    _, report = java_like
    remark = "the Java service does this too: it accepts base64 padding"
    document = {check["id"]: check for check in json.loads(files.as_json(report))["checks"]}
    assert document["signature.segments"]["java_service"] == "accepts base64 padding"
    assert document["save.new"]["java_service"] == ""
    assert f"200 came with a JSON object of token ({remark})" in files.as_junit(report)
    assert "The Java service does this too: it accepts base64 padding." in files.as_html(report)
    text = screen.summary(report)
    assert f"  ({remark})" in text
    failed = report.count(FAIL)
    assert f"{failed} of the {failed} failures also occur with the Java service." in text


def test_no_must_is_a_known_deviation_and_what_moved_is_should():
    known = {id for deviation in peer.DEVIATIONS for id in deviation.checks}
    assert {id: registry.CHECKS[id].level for id in known} == dict.fromkeys(known, "should")
    assert {id: registry.CHECKS[id].level for id in MOVED} == dict.fromkeys(MOVED, "should")


@pytest.mark.parametrize(
    ("check", "seen"),
    [
        ("batch.empty", Observation(400)),
        ("batch.empty", Observation(0)),
        ("tokens.not-encrypted", Observation(404, what="another state, unchanged")),
        ("signature.segments", Observation(500, what="GET: padding")),
        ("signature.segments", Observation(404, wanted="1", found=None)),
        ("http.error-shape", Observation(401, b"no", "401")),
        ("http.error-shape", Observation(500, what="404")),
        ("content.spelling", Observation(200, wanted='{"a":1}', found='{"a":2}')),
        ("content.trailing", Observation(404, wanted="{}", found=None)),
        ("content.not-json", Observation(400)),
        ("save.equal-replaces", Observation(404, wanted="1", found=None)),
        ("claims.exp-skew", Observation(500)),
        ("tokens.sub", Observation(204, what="missing")),
        ("concurrency.one-jti", Observation()),
        ("save.new", Observation(500)),
    ],
)
def test_another_failure_of_the_same_check_gets_no_remark(check, seen):
    assert peer.known_deviation(check, seen) == ""


def test_a_receiver_with_a_fault_of_its_own_gets_no_remark(keys, tmp_path):
    program = ("tests.support.faulty_receivers", "answers errors without JSON")
    report = checked(keys, tmp_path, program, registry.chosen("all", ["http.error-shape"]))
    assert [(one.verdict, one.peer) for one in report.results] == [(FAIL, "")]


def test_must_checks_send_json_that_expires_and_never_an_empty_array(keys, tmp_path, monkeypatch):
    made, bodies, now = [], [], []
    claims_of, call = tokens.state_claims, RecordingClient.call

    def noted_claims(state, *when):
        made.append((now[-1], state))
        return claims_of(state, *when)

    def noted_call(self, method, path, body=None, headers=None):
        bodies.append((now[-1] if now else "", body))
        return call(self, method, path, body, headers)

    monkeypatch.setattr(tokens, "state_claims", noted_claims)
    monkeypatch.setattr(RecordingClient, "call", noted_call)
    with running_receiver(keys, tmp_path) as running:
        target = Target(running.url, keys, str(uuid.uuid4()))
        report = run(target, registry.chosen("must"), "must", lambda check, result: result or now.append(check.id))
    assert report.conforms
    assert len(made) > 500
    for check, state in made:
        assert state["expiresAt"], check
        assert same_meaning(jsonb(state["content"]), state["content"]), check
    assert [check for check, body in bodies if body is not None and body.strip() == b"[]"] == []


CONTENTS = (
    *('{"b":1, "a" : 2}', '{ "z": [ ] ,\r\n\t"aa": { }, "b": null }', '{"\\u00e9": "\\/\\u0041"}'),
    *('{"b":3,"a":2,"b":1}', "[1e400,1.0,-0,-0.0,1E+2,0.10]", "[123456789012345678901234567890]", "  {} ", "true"),
    *('"größe \U0001f680 \u202e \ufeff"', '"\\\\n\\n\\t\\u0001\x7f"', '{"zz":1,"ü":2,"a":3}', "[1.5e-7, 100000.5]"),
)


def test_the_jsonb_of_that_receiver_is_that_of_postgresql(postgresql):
    psycopg = pytest.importorskip("psycopg")
    with psycopg.connect(postgresql.url(postgresql.new_database())) as connection:
        for content in CONTENTS:
            assert connection.execute("select %s::jsonb::text", [content]).fetchone()[0] == jsonb(content)
    for content in ("", "{", "NaN", '"\\u0000"', '"\\ud800"', "\ufeff{}"):
        with pytest.raises(ValueError):
            jsonb(content)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a":1,"b":[2]}', '{ "b" : [2.0], "a": 1e0 }', True),
        ('{"a":1,"a":2}', '{"a":2}', True),
        ("[-0, 0.10]", "[0, 0.1]", True),
        ("not JSON", "not JSON", True),
        ('"\\u0041"', '"A"', True),
        ("[1]", "[true]", False),
        ("[0]", "[false]", False),
        ("[1]", '["1"]', False),
        ("[1,2]", "[2,1]", False),
        ("[null]", "[]", False),
        ("not JSON", "not  JSON", False),
        ('{"a":1', '{"a": 1', False),
        ("[" * 100_000, "[", False),
    ],
)
def test_contents_are_compared_by_meaning(one, other, same):
    assert same_meaning(one, other) == same
