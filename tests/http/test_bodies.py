"""Bodies as they really arrive: their framing, chunks, size and end. Table E of the cases."""

import socket
import struct
import time
from urllib.parse import urlsplit

import pytest

from receiver.mock_platform.client import Client
from tests.support.platform_client import loaded
from tests.support.raw_http import LIMIT, READ_TIMEOUT, ids_of, request, statuses

pytestmark = pytest.mark.slow

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
