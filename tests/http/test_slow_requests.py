"""Requests that wait, drip or come in pieces, and who gets a thread meanwhile. Table E of the cases."""

import contextlib
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.support.raw_http import READ_TIMEOUT, ids_of, request, statuses

pytestmark = pytest.mark.slow


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
