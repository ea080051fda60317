"""Methods, headers, targets and connections as they really arrive. Table E of the cases."""

import json
import re
import uuid

import pytest

from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun
from tests.support.platform_client import assert_problem, loaded
from tests.support.raw_http import LIMIT, ids_of, request, statuses

pytestmark = pytest.mark.slow


@pytest.mark.case("E08")
@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "PATCH", "FOO", "CONNECT"])
def test_other_methods_have_no_effect(platform, stored, unchanged, method):
    for path in (f"/api/storage/1/states/{platform.tenant}", f"/api/storage/1/states/{platform.tenant}/{stored['id']}"):
        answer = platform.call(method, path, ids_of(stored))
        assert_problem(answer, 405)
        assert answer.headers["allow"]


@pytest.mark.case("E08")
def test_the_method_cannot_be_overridden(platform, stored):
    path = f"/api/storage/1/states/{platform.tenant}/{stored['id']}"
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        assert platform.call("GET", path, headers=platform.headers(path) | {name: "DELETE"}).status == 200
    assert loaded(platform, stored["id"]) == stored["content"]


CONTENT_TYPES = {
    "application/json": 204,
    "application/json; charset=utf-8": 204,
    "APPLICATION/JSON;CHARSET=UTF-8": 204,
    'application/json; charset="utf-8"': 204,
    None: 415,
    "text/plain": 415,
    "text/json": 415,
    "": 415,
    "application/x-www-form-urlencoded": 415,
    "multipart/form-data; boundary=x": 415,
    "application/jsonx": 415,
    "application/json; charset=utf-16": 415,
    "application/json; charset=latin-1": 415,
}


@pytest.mark.case("E09")
@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_only_json_in_utf_8_is_read(platform, state, content_type):
    path = f"/api/storage/1/states/{platform.tenant}"
    body = json.dumps([{"token": tokens.seal_state(state, platform.keys)}]).encode()
    headers = platform.headers(path)
    platform.connection.putrequest("POST", path, skip_accept_encoding=True)
    if content_type is not None:
        platform.connection.putheader("Content-Type", content_type)
    for name, value in (headers | {"Content-Length": str(len(body))}).items():
        platform.connection.putheader(name, value)
    platform.connection.endheaders(body)
    response = platform.connection.getresponse()
    response.read()
    assert response.status == CONTENT_TYPES[content_type]
    assert platform.load(state["id"]).status == (200 if response.status == 204 else 404)


@pytest.mark.case("E09")
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "x"])
def test_a_content_encoding_is_refused(platform, stored, unchanged, encoding):
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path) | {"Content-Encoding": encoding}
    assert_problem(platform.call("DELETE", path, ids_of(stored), headers), 415)


@pytest.mark.case("E10")
def test_headers_and_request_lines_are_bounded(platform, wire, unchanged):
    def signed_by(size):
        return request(platform, "DELETE", lines=[b"X-ManyWho-Signature: " + b"a" * size], drop=["X-ManyWho-Signature"])

    assert statuses(wire(signed_by(8100))) == [401]
    assert statuses(wire(signed_by(8200))) == [431]
    assert statuses(wire(request(platform, "GET", lines=[b"X-%d: 1" % n for n in range(101)]))) == [431]
    assert statuses(wire(b"GET /" + b"a" * 4100 + b" HTTP/1.1\r\nHost: x\r\n\r\n")) == [414]
    assert statuses(wire(request(platform, "GET", lines=[b"Host: other"]))) == [400]


@pytest.mark.case("E10")
@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_in_the_one_shape_or_dropped(wire, data):
    received = wire(data, finish=True)
    assert not received.endswith(b"<still open>")
    if received:
        head, _, body = received.partition(b"\r\n\r\n")
        assert statuses(head) in ([400], [414], [505])
        assert json.loads(body)["kind"] == "service"


@pytest.mark.case("E11")
def test_health_and_unknown_addresses_tell_nothing(platform, wire, folder):
    answer = platform.health()
    assert (answer.status, answer.body) == (200, b'{"status":"ok"}')
    assert "server" in answer.headers and not re.search(r"\d", answer.headers["server"])
    assert_problem(platform.call("GET", f"/api/storage/1/states/{platform.tenant}/health", headers={}), 401)
    for path in (
        *(
            f"/api/storage/1/health/../states/{platform.tenant}/{uuid.UUID(int=1)}",
            "/",
            "/api",
            "/api/storage/2/health",
        ),
        *("/api//storage/1/health", "/api/storage/1/health/", "/api/storage/1//health", "/api/storage/1/states"),
        *("/static/x", "/api/storage/1/states/", "/%2e%2e/etc/passwd", "/api/storage/1/states/a/b/c"),
    ):
        answer = platform.call("GET", path, headers={})
        assert_problem(answer, 404)
        assert str(folder).encode() not in answer.body
    assert statuses(
        wire(b"GET http://localhost/api/storage/1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    ) == [200]


@pytest.mark.case("C13")
@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_body_that_a_proxy_stripped_is_told(platform, stored, wire, unchanged, method):
    for lines in ([], [b"Content-Length: 0"]):
        close = [*lines, b"Connection: close"]
        for data in (
            request(platform, method, lines=close),
            request(platform, method, lines=close, drop=["Content-Type"]),
        ):
            received = wire(data)
            assert statuses(received) == [400]
            assert b"The body is empty." in received


def test_an_absolute_form_target_is_signed_by_its_path(platform, stored, wire):
    path = f"/api/storage/1/states/{platform.tenant}/{stored['id']}"
    data = request(platform, "GET", path=path, lines=[b"Connection: close"])
    assert statuses(wire(data.replace(b"GET /", b"GET http://localhost/", 1))) == [200]


@pytest.mark.case("A17")
@pytest.mark.parametrize("mark", "?#")
@pytest.mark.parametrize("target", ["http:{of_all}", "http://h{of_all}", "http:///{of_all}", "x:{of_all}", "{of_all}"])
def test_a_signature_for_one_state_is_never_one_for_all(platform, stored, wire, unchanged, target, mark):
    of_all = f"/api/storage/1/states/{platform.tenant}"
    of_one = f"{of_all}/{stored['id']}"
    body = ids_of(stored)
    captured = request(platform, "GET", path=of_one, lines=[b"Content-Length: %d" % len(body), b"Connection: close"])
    asked = target.format(of_all=of_all)
    for tail in (f"x://h{of_one}", f"://{of_one}", of_one):
        line = f"DELETE {asked}{mark}{tail} HTTP/1.1".encode()
        received = wire(line + captured.partition(b" HTTP/1.1")[2] + body)
        assert statuses(received) in ([400], [401]), line


@pytest.mark.case("A25")
def test_a_second_imitated_or_late_signature_is_refused(platform, stored, wire, unchanged):
    body = ids_of(stored)
    path = f"/api/storage/1/states/{platform.tenant}"
    size = b"Content-Length: %d" % len(body)
    good = b"X-ManyWho-Signature: " + platform.headers(path)["X-ManyWho-Signature"].encode()
    bad = b"X-ManyWho-Signature: x.y.z"
    without = ["X-ManyWho-Signature"]
    for lines in (
        [good, bad],
        [bad, good],
        [good, good],
        [good.replace(b"-", b"_", 2)],
        [good.replace(b"X-M", b"X_M", 1)],
    ):
        assert statuses(wire(request(platform, "DELETE", body, lines=[size, *lines], drop=without))) == [401]
    late = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(body), body, good)
    lines = [b"Transfer-Encoding: chunked", b"Trailer: X-ManyWho-Signature"]
    assert statuses(wire(request(platform, "DELETE", late, lines=lines, drop=without))) == [401]


def test_many_requests_on_one_connection_are_answered_in_order(platform, stored, wire):
    path = f"/api/storage/1/states/{platform.tenant}/{stored['id']}"
    one, unsigned = request(platform, "GET", path=path), request(platform, "GET", path=path, aud="x")
    last = request(platform, "GET", path=path, lines=[b"Connection: close"])
    assert statuses(wire(one + unsigned + one + unsigned + last, wait=3)) == [200, 401, 200, 401, 200]


@pytest.mark.case("E01")
def test_an_unread_body_is_never_taken_for_the_next_request(platform, stored, wire, unchanged):
    inner = request(platform, "DELETE", ids_of(stored), lines=[b"Content-Length: %d" % len(ids_of(stored))])
    for framing, body in (
        (b"Content-Length: %d" % len(inner), inner),
        (b"Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)),
    ):
        received = wire(request(platform, "DELETE", body, lines=[framing], aud="somebody else") + inner)
        assert statuses(received) == [401]
        assert b"Connection: close" in received


def test_a_large_content_in_the_way_of_the_limit_is_told(platform, tenant):
    state = FlowRun(tenant).state() | {"content": "x" * LIMIT}
    assert_problem(platform.save(state, compressed=False), 413)
    assert platform.save(state).status == 204


def test_the_log_holds_no_token_and_no_content_and_no_forged_line(platform, stored, wire, folder):
    """Runs last in this file: all that the tests above sent is in this log, at level debug."""
    secret = platform.headers("/x")["X-ManyWho-Signature"]
    wire(request(platform, "GET", lines=[secret.encode()]))
    wire(b"GET /" + secret.encode() + b"\r\n\r\n")
    wire(request(platform, "GET", path="/api/storage/1/%0a2026-01-01T00:00:00.000Z%20ERROR%20forged"))
    wire(request(platform, "GET", lines=[b"X-A\x0bb: " + secret.encode()]))
    log = (folder / "log").read_text()
    assert "GET /api/storage/1/states/" in log
    assert stored["content"][:60] not in log
    assert secret.split(".")[2][:20] not in log
    assert secret.split(".")[1][:40] not in log
    assert platform.keys.receiver.private()["d"] not in log
    for line in log.splitlines():
        assert re.match(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) ", line
        ) or line.startswith("    | "), line
    assert "%0a2026-01-01T00:00:00.000Z%20ERROR%20forged" in log
    assert "ERROR" not in {line.split()[1] for line in log.splitlines()}
