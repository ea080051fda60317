"""HTTP as it really arrives, over sockets, at a receiver of several processes. Table E of the cases."""

import contextlib
import json
import re
import socket
import struct
import time
import uuid
from urllib.parse import urlsplit

import pytest

from receiver.commands.demo import running_receiver
from receiver.mock_platform import tokens
from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from tests.conftest import assert_problem, loaded, rows_of

LIMIT = 1 << 20
READ_TIMEOUT = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def running(keys, folder):
    few = {"STORAGE_WORKERS": "2", "STORAGE_THREADS": "2", "STORAGE_READ_TIMEOUT": str(READ_TIMEOUT)}
    with (
        open(folder / "log", "w") as log,
        running_receiver(keys, folder, log, STORAGE_MAX_BODY=str(LIMIT), STORAGE_LOG_LEVEL="debug", **few) as running,
    ):
        yield running


@pytest.fixture
def platform(running, tenant, keys):
    client = Client(running.url, tenant, keys)
    yield client
    client.close()


@pytest.fixture
def stored(platform, state):
    """A state that is stored, and that no malformed request may change or delete."""
    assert platform.save(state).status == 204
    return state


@pytest.fixture
def unchanged(folder):
    before = rows_of(folder / "states.db")
    yield
    assert rows_of(folder / "states.db") == before


@pytest.fixture
def wire(running):
    """Return a function that sends bytes and returns all that comes back until the server closes, or for a while."""

    def send(data: bytes, wait: float = 1.0, then: bytes = b"", finish: bool = False) -> bytes:
        parts = urlsplit(running.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=wait) as connection:
            received = b""
            try:
                connection.sendall(data)
                if then:
                    time.sleep(0.2)
                    connection.sendall(then)
                if finish:
                    connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
            except TimeoutError:
                return received + b"<still open>"
            except ConnectionError:
                pass
            return received

    return send


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def request(platform, method="DELETE", body=b"", path=None, lines=(), drop=(), **claims) -> bytes:
    """Return a signed request as bytes; ``lines`` are further header lines, ``drop`` names of headers to leave out."""
    path = path or f"/api/storage/1/states/{platform.tenant}"
    headers = {"Host": "localhost", "Content-Type": "application/json"} | platform.headers(path, **claims)
    text = [f"{name}: {value}".encode() for name, value in headers.items() if name not in drop]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *text, *lines, b"", b""]) + body


def ids_of(state) -> bytes:
    return json.dumps([state["id"]]).encode()


SIZED = "Content-Length: {size}"
FRAMINGS = {
    "length and chunked": [SIZED, "Transfer-Encoding: chunked"],
    "two lengths": [SIZED, "Content-Length: 2"],
    "the same length twice": [SIZED, SIZED],
    "a list of lengths": ["Content-Length: {size}, {size}"],
    "a length with a sign": ["Content-Length: +{size}"],
    "a length with an underscore": ["Content-Length: 4_0"],
    "a negative length": ["Content-Length: -1"],
    "a length in hex": ["Content-Length: 0x2"],
    "a length with a vertical tab": ["Content-Length: {size}\x0b"],
    "an unknown coding": ["Transfer-Encoding: xchunked"],
    "identity": ["Transfer-Encoding: identity"],
    "chunked twice": ["Transfer-Encoding: chunked, chunked"],
    "two codings": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "a space before the colon": ["Transfer-Encoding : chunked"],
    "a tab before the colon": ["Content-Length\t: {size}"],
    "chunked with a vertical tab": ["Transfer-Encoding: \x0bchunked"],
    "gzip and chunked": ["Transfer-Encoding: gzip, chunked"],
    "a folded header": ["X-A: b", " Content-Length: {size}"],
}


@pytest.mark.case("E01")
@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_body_whose_end_is_ambiguous_is_refused_and_what_follows_is_not_run(
    platform, stored, wire, unchanged, framing
):
    body = ids_of(stored)
    lines = [line.format(size=len(body)).encode() for line in FRAMINGS[framing]]
    tail = request(platform, "DELETE", body, lines=[b"Content-Length: %d" % len(body)])
    received = wire(request(platform, "DELETE", body, lines=lines) + tail)
    assert statuses(received) in ([400], [501])
    assert b"Connection: close" in received
    assert not received.endswith(b"<still open>")


@pytest.mark.case("E01")
def test_chunks_are_refused_where_the_http_version_has_none(platform, stored, wire, unchanged):
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ids_of(stored)), ids_of(stored))
    data = request(platform, "DELETE", body, lines=[b"Transfer-Encoding: chunked"])
    received = wire(data.replace(b"HTTP/1.1", b"HTTP/1.0") + request(platform, "DELETE", b""))
    assert statuses(received) == [400]
    assert not received.endswith(b"<still open>")


CHUNKS = {
    "a bad extension": b"%(size)x;\x00=1\r\n%(body)s\r\n0\r\n\r\n",
    "bare line feeds": b"%(size)x\n%(body)s\n0\n\n",
    "a negative size": b"-%(size)x\r\n%(body)s\r\n0\r\n\r\n",
    "a size with 0x": b"0x%(size)x\r\n%(body)s\r\n0\r\n\r\n",
    "no size": b"\r\n%(body)s\r\n0\r\n\r\n",
    "a size that is too small": b"1\r\n%(body)s\r\n0\r\n\r\n",
    "no last chunk": b"%(size)x\r\n%(body)s\r\n",
    "an early end": b"fff\r\n%(body)s",
}


@pytest.mark.case("E03")
@pytest.mark.parametrize("chunks", CHUNKS)
def test_malformed_chunks_are_refused_and_the_connection_is_closed(platform, stored, wire, unchanged, chunks):
    body = ids_of(stored)
    data = CHUNKS[chunks] % {b"size": len(body), b"body": body}
    received = wire(request(platform, "DELETE", data, lines=[b"Transfer-Encoding: chunked"]), finish=True)
    assert statuses(received) == [400]
    assert b"Connection: close" in received
    assert not received.endswith(b"<still open>")


def test_a_chunked_body_is_read_whole(platform, stored, wire):
    body = ids_of(stored)
    chunks = b"".join(b"%x;ext=1\r\n%s\r\n" % (1, body[n : n + 1]) for n in range(len(body))) + b"0\r\n\r\n"
    received = wire(request(platform, "DELETE", chunks, lines=[b"Transfer-Encoding: chunked", b"Connection: close"]))
    assert statuses(received) == [204]
    assert platform.load(stored["id"]).status == 404


@pytest.mark.case("E05")
@pytest.mark.parametrize("size", [LIMIT + 1, 99 * 10**9])
def test_a_body_declared_over_the_limit_is_not_read(platform, wire, unchanged, size):
    began = time.monotonic()
    received = wire(request(platform, "POST", lines=[b"Content-Length: %d" % size, b"Connection: close"]), wait=10)
    assert statuses(received) == [413]
    assert time.monotonic() - began < 8


@pytest.mark.case("E05")
def test_a_chunked_body_over_the_limit_is_refused_as_soon_as_it_is(platform, stored, wire, unchanged):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    received = wire(request(platform, "DELETE", chunk * 40, lines=[b"Transfer-Encoding: chunked"]), wait=10)
    assert statuses(received) == [413]
    assert b"Connection: close" in received


def test_a_body_of_exactly_the_limit_is_accepted(platform, stored, wire):
    for body, status in ((ids_of(stored).ljust(LIMIT), 204), (b"[]".ljust(LIMIT + 1), 413)):
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        received = wire(
            request(platform, "DELETE", chunked, lines=[b"Transfer-Encoding: chunked", b"Connection: close"])
        )
        assert statuses(received) == [status]
        sized = request(platform, "DELETE", body, lines=[b"Content-Length: %d" % len(body), b"Connection: close"])
        assert statuses(wire(sized)) == [status]


@pytest.mark.case("E06")
def test_a_body_that_ends_early_changes_nothing(platform, stored, wire, unchanged):
    lines = [b"Content-Length: 1000"]
    assert statuses(wire(request(platform, "DELETE", ids_of(stored), lines=lines), finish=True)) == [400]
    assert statuses(wire(request(platform, "DELETE", ids_of(stored), lines=lines), wait=READ_TIMEOUT + 3)) == [400]


@pytest.mark.case("E06")
def test_connections_that_are_reset_in_the_middle_harm_nobody(platform, stored, running, unchanged):
    parts = urlsplit(running.url)
    for cut in range(20):
        connection = socket.create_connection((parts.hostname, parts.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        data = request(platform, "DELETE", ids_of(stored), lines=[b"Content-Length: 1000"])
        connection.sendall(data[: len(data) - 45 * cut])
        connection.close()
    assert loaded(platform, stored["id"]) == stored["content"]


@pytest.mark.case("E05")
@pytest.mark.parametrize(("size", "claims", "status"), [(2, {}, 413), (40, {}, 413), (2, {"aud": "somebody"}, 401)])
def test_a_client_that_sends_too_much_gets_to_read_the_refusal(running, platform, unchanged, size, claims, status):
    path = f"/api/storage/1/states/{platform.tenant}"
    body = b" " * (size << 20)
    for _ in range(5):
        client = Client(running.url, platform.tenant, platform.keys)
        assert client.call("POST", path, body, client.headers(path, **claims)).status == status
        client.close()


def test_a_client_that_sends_no_http_gets_to_read_the_refusal_too(wire):
    for _ in range(5):
        received = wire(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n" + b" " * (4 << 20), finish=True)
        assert statuses(received) == [400]


@pytest.mark.case("E05")
def test_a_waiting_client_is_asked_for_its_body_only_once_its_signature_holds(platform, stored, wire):
    expect = [b"Expect: 100-continue", b"Connection: close"]
    huge = [*expect, b"Content-Length: 99000000000"]
    assert statuses(wire(request(platform, "POST", lines=huge, aud="somebody"), wait=6)) == [401]
    assert statuses(wire(request(platform, "POST", lines=huge), wait=6)) == [413]
    body = ids_of(stored)
    data = request(platform, "DELETE", lines=[*expect, b"Content-Length: %d" % len(body)])
    assert statuses(wire(data, then=body)) == [100, 204]


@pytest.fixture
def held(running):
    """A function that opens connections, sends each some bytes, and keeps them open until the test ends."""
    kept = []

    def hold(count: int, data: bytes) -> list[socket.socket]:
        parts = urlsplit(running.url)
        for _ in range(count):
            kept.append(socket.create_connection((parts.hostname, parts.port)))
            kept[-1].sendall(data)
        return kept

    yield hold
    for connection in kept:
        connection.close()


@pytest.mark.case("E06")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: ",
        b"BAD\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
)
def test_unproven_clients_cannot_keep_others_waiting(platform, stored, held, data):
    held(60, data)
    for _ in range(3):
        began = time.monotonic()
        assert platform.load(stored["id"]).status == 200
        assert time.monotonic() - began < READ_TIMEOUT  # a client that held a thread would hold it for that long
        platform.close()


@pytest.mark.case("E06")
def test_a_head_that_drips_is_given_up_after_its_time(platform, held):
    began = time.monotonic()
    (connection,) = held(1, b"GET / HTTP/1.1\r\n")
    connection.settimeout(0.2)
    while time.monotonic() - began < 30:
        try:
            connection.sendall(b"X-A: b\r\n")  # a line now and then must not buy more time
            if connection.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    assert READ_TIMEOUT - 0.5 < time.monotonic() - began < READ_TIMEOUT + 3


@pytest.mark.case("E06")
def test_bodies_that_drip_hold_their_threads_for_no_longer_than_their_time(platform, stored, held):
    started = request(platform, "DELETE", b"[", lines=[b"Content-Length: 90"])
    connections = held(8, started)
    began = time.monotonic()
    for _ in range(3):
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.send(b" ")
        assert platform.load(stored["id"]).status == 200
        platform.close()
    assert time.monotonic() - began < 30


def test_a_head_that_comes_in_pieces_is_put_together(platform, stored, wire):
    data = request(platform, "DELETE", ids_of(stored), lines=[b"Content-Length: %d" % len(ids_of(stored))])
    assert statuses(wire(data[:50], then=data[50:] + request(platform, "GET", lines=[b"Connection: close"]))) == [
        204,
        405,
    ]


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
