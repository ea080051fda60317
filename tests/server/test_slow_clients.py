"""Slow clients of one tenant, and what another one feels of them: nothing. Real processes, loopback."""

import contextlib
import http.client
import json
import os
import signal
import socket
import time
import uuid
from pathlib import Path

import pytest

from receiver.commands.demo import running_receiver
from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE, Client
from receiver.mock_platform.flow_states import FlowRun
from tests.support import certificates
from tests.support.platform_client import loaded
from tests.support.serving import address_of
from tests.support.slow_clients import SlowClients, is_ended, rendered
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

ONE = {"STORAGE_WORKERS": "1", "STORAGE_THREADS": "2", "STORAGE_LOG_LEVEL": "warning"}
SOON = 5.0  # seconds; a request takes milliseconds, and was held up for 30 s and more


@pytest.fixture
def receiver(keys, tmp_path):
    """A function that starts a receiver of one worker with two threads, and returns its Running; its log is ``log``."""
    with contextlib.ExitStack() as stack:

        def start(**environment):
            log = stack.enter_context(open(tmp_path / "log", "w"))
            return stack.enter_context(running_receiver(keys, tmp_path, log, **(ONE | environment)))

        yield start


@pytest.fixture
def other(keys):
    """A function from a running receiver to a client of another tenant."""
    with contextlib.ExitStack() as stack:

        def connect(running, context=None):
            client = Client(running.url, str(uuid.uuid4()), keys, timeout=60, context=context)
            stack.callback(client.close)
            return client

        yield connect


def incompressible(state, size):
    return state | {"content": os.urandom(size // 2).hex()}


def get_of(client, id, **more):
    path = f"{BASE}/states/{client.tenant}/{id}"
    return rendered("GET", path, client.headers(path) | more)


def body_of(keys, state):
    return json.dumps([{"token": tokens.seal_state(state, keys)}]).encode()


def slowest_of(seconds, call):
    """Return the longest that ``call`` takes when it is made over and over for so many ``seconds``."""
    slowest, until_then = 0.0, time.monotonic() + seconds
    while time.monotonic() < until_then:
        began = time.monotonic()
        call()
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def dialled(running, context=None, keeps_little=True):
    plain = socket.socket()
    if keeps_little:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    plain.settimeout(30)
    plain.connect(address_of(running))
    return context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain


def taken(sock, size, rate=2 << 20):
    """Return the next ``size`` bytes, taken slowly; fewer when the connection ends."""
    data, due = b"", rate // 20
    while len(data) < size and (more := sock.recv(min(size - len(data), 1 << 20))):
        data += more
        if len(data) >= due:
            due += rate // 20
            pass_time(0.05, "the client's slowness")
    return data


def reply_from(sock, rate=2 << 20):
    head = b""
    while b"\r\n\r\n" not in head:
        more = sock.recv(1)
        assert more
        head += more
    size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return head, taken(sock, size, rate)


# Replies


def test_slow_readers_of_a_large_reply_hold_up_no_other_tenant(receiver, platform_at, other, state):
    running = receiver()
    slow, quick = platform_at(running.url), other(running)
    assert slow.save(incompressible(state, 3_800_000)).status == 204
    small = FlowRun(quick.tenant, 3).state()
    assert quick.save(small).status == 204
    captured = get_of(slow, state["id"])
    with SlowClients(address_of(running), 12, lambda: captured, taken_rate=40_000) as clients:
        until(lambda: sum(client.taken > 0 for client in clients.clients) >= 8)
        assert slowest_of(8, lambda: loaded(quick, small["id"])) < SOON


@pytest.mark.parametrize("is_secure", [False, True])
def test_a_reply_that_is_taken_slowly_comes_whole_and_the_next_requests_follow(
    receiver, platform_at, state, tmp_path, is_secure
):
    context = certificates.trusting() if is_secure else None
    running = receiver(**(certificates.write(tmp_path) if is_secure else {}))
    client = platform_at(running.url, context)
    large = incompressible(state, 3_800_000)
    assert client.save(large).status == 204
    path = f"{BASE}/states/{client.tenant}/{state['id']}"
    request = rendered("GET", path, client.headers(path)).replace(b"Connection: close\r\n", b"")
    with dialled(running, context) as sock:
        sock.sendall(request + request)  # the second one is pipelined
        for _ in range(2):
            head, body = reply_from(sock)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert client.open(state["id"], _Answer(body)) == large["content"]
        sock.sendall(request)
        head, body = reply_from(sock, rate=1 << 30)
        assert client.open(state["id"], _Answer(body)) == large["content"]
        sock.sendall(rendered("HEAD", path, client.headers(path)))
        head, nothing = reply_from(sock)
        assert (head[:13], nothing) == (b"HTTP/1.1 200 ", b"")


class _Answer:
    def __init__(self, body):
        self.json = json.loads(body)


def test_beyond_the_bound_of_a_signature_its_slowest_readers_are_cut_off(receiver, platform_at, other, state, tmp_path):
    running = receiver(STORAGE_MAX_BODY="4MiB")  # as much of replies waits for one signature
    slow = platform_at(running.url)
    assert slow.save(incompressible(state, 2_600_000)).status == 204
    captured = get_of(slow, state["id"])
    with contextlib.ExitStack() as stack:
        readers = []
        for _ in range(6):
            readers.append(stack.enter_context(dialled(running)))
            readers[-1].sendall(captured)
            assert readers[-1].recv(1) == b"H"
        log = tmp_path / "log"
        until(lambda: f"dropped: a reply to tenant {slow.tenant}" in log.read_text())
        gone = set()

        def three_are_gone() -> bool:
            gone.update(reader for reader in readers if reader.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            return len(gone) >= 3

        until(three_are_gone)
        quick = other(running)
        assert quick.save(FlowRun(quick.tenant, 3).state()).status == 204
    assert log.read_text().count("dropped: a reply") <= 2  # it is throttled


def test_a_client_that_takes_nothing_is_cut_off_in_time_and_gives_its_connection_back(
    receiver, platform_at, state, tmp_path
):
    running = receiver(STORAGE_READ_TIMEOUT="1")
    slow = platform_at(running.url)
    assert slow.save(incompressible(state, 3_800_000)).status == 204
    (worker,) = until(lambda: workers_of(running))
    slow.close()
    until(lambda: sockets_of(worker) == sockets_at_rest(worker))
    with dialled(running) as still, dialled(running) as gone:
        for sock in (still, gone):
            sock.sendall(get_of(slow, state["id"]))
            assert sock.recv(1) == b"H"
        gone.close()
        until(lambda: "did not take in time" in (tmp_path / "log").read_text())
        assert is_ended(still, 10)
    until(lambda: sockets_of(worker) == sockets_at_rest(worker))


def workers_of(running):
    pid = running.process.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sockets_of(pid):
    """Return how many TCP connections ``pid`` has."""
    inodes = {os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir() if one.exists() or one.is_symlink()}
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(f"socket:[{line[9]}]" in inodes for line in lines if line[3] != "0A")


def sockets_at_rest(_pid):
    return 0


def test_many_pipelined_requests_whose_replies_nobody_takes_hold_up_nobody(receiver, other):
    running = receiver()
    quick = other(running)
    request = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    with SlowClients(address_of(running), 20, lambda: 3000 * request, sent_rate=200_000, at_once=1, taken_rate=100):
        state = FlowRun(quick.tenant, 3).state()
        assert slowest_of(5, lambda: quick.save(state)) < SOON


def test_at_sigterm_a_reply_that_is_being_taken_is_finished(receiver, platform_at, state):
    running = receiver()
    client = platform_at(running.url)
    large = incompressible(state, 3_800_000)
    assert client.save(large).status == 204
    request = get_of(client, state["id"])
    platform_at.close()
    with dialled(running) as sock:
        sock.sendall(request)
        assert sock.recv(1) == b"H"
        running.process.send_signal(signal.SIGTERM)
        _, body = reply_from(sock)
        assert client.open(state["id"], _Answer(body)) == large["content"]
        assert sock.recv(1) == b""
    assert running.process.wait(20) == 0


def test_at_sigterm_a_client_that_takes_nothing_does_not_delay_the_end(receiver, platform_at, state):
    running = receiver(STORAGE_GRACEFUL_TIMEOUT="2")
    client = platform_at(running.url)
    assert client.save(incompressible(state, 3_800_000)).status == 204
    request = get_of(client, state["id"])
    platform_at.close()
    with dialled(running) as sock:
        sock.sendall(request)
        assert sock.recv(1) == b"H"
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        assert time.monotonic() - began < 8


# Bodies


def test_slow_large_uploads_of_one_tenant_refuse_no_other_ones_save(receiver, platform_at, other, keys, state):
    running = receiver(STORAGE_READ_TIMEOUT="6")
    slow, quick = platform_at(running.url), other(running)
    path = f"{BASE}/states/{slow.tenant}"
    good = incompressible(FlowRun(quick.tenant, 3).state(), 655_000)

    def request():
        return rendered("POST", path, slow.headers(path), b"[" + b" " * 599_999)

    theirs, body = f"{BASE}/states/{quick.tenant}", body_of(keys, good)

    def save():
        with dialled(running, keeps_little=False) as sock:
            whole = rendered("POST", theirs, quick.headers(theirs), body)
            sock.sendall(whole[:400_000])
            pass_time(0.2, "longer than a body that is read at once")
            sock.sendall(whole[400_000:])
            answer = sock.recv(4096)
            assert answer.startswith(b"HTTP/1.1 204 "), answer

    with SlowClients(address_of(running), 60, request, sent_rate=18_000, at_once=300_400) as clients:
        until(lambda: len(clients.clients) >= 50)
        assert slowest_of(10, save) < SOON
        assert loaded(quick, good["id"]) == good["content"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_three_hundred_slow_bodies_of_one_tenant_leave_places_and_the_slowest_are_answered_503(
    receiver, platform_at, other, keys, tmp_path, method
):
    running = receiver()
    slow, quick = platform_at(running.url), other(running)
    path = f"{BASE}/states/{slow.tenant}"
    small = FlowRun(quick.tenant, 3).state()

    def request():
        return rendered(method, path, slow.headers(path), b"[" + b" " * 599_999)

    with SlowClients(address_of(running), 300, request, sent_rate=18_000, at_once=2_000, follows=False) as clients:
        until(lambda: clients.ended["503"] >= 100)
        assert max(clients.seconds["503"]) < 10  # all of them connect meanwhile, in one thread
        assert slowest_of(4, lambda: quick.save(small)) < SOON
        good = incompressible(small, 655_000)
        body = body_of(keys, good | {"updatedAt": "2030-01-01T00:00:00.0000000Z"})
        with dialled(running, keeps_little=False) as sock:  # sent in two parts: it waits as theirs do
            theirs = f"{BASE}/states/{quick.tenant}"
            whole = rendered("POST", theirs, quick.headers(theirs), body)
            sock.sendall(whole[:300_000])
            pass_time(0.5, "longer than a body that is read at once")
            sock.sendall(whole[300_000:])
            assert sock.recv(100).startswith(b"HTTP/1.1 204 ")
        assert set(clients.ended) <= {"503"}
    assert f"answered 503: a body of tenant {slow.tenant}" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("kind", ["plain", "chunked", "tls"])
def test_a_body_that_has_to_go_is_answered_503_with_retry_after(receiver, platform_at, tmp_path, kind):
    context = certificates.trusting() if kind == "tls" else None
    running = receiver(STORAGE_MAX_BODY="64KiB", **(certificates.write(tmp_path) if context else {}))
    slow = platform_at(running.url, context)
    path = f"{BASE}/states/{slow.tenant}"
    captured = slow.headers(path)
    body = b"[" + b" " * 59_999
    if kind == "chunked":
        headers = captured | {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
        request = rendered("POST", path, headers) + b"ea60\r\n" + body
    else:
        request = rendered("POST", path, captured, body)
    with contextlib.ExitStack() as stack:
        socks = []
        for _ in range(3):  # of one signature two are more than 64 KiB
            socks.append(stack.enter_context(dialled(running, context)))
            socks[-1].sendall(request[:-20_000])
            pass_time(0.3, "one comes after the other")
        answer = http.client.HTTPResponse(socks[0])
        answer.begin()
        assert answer.getheader("Retry-After") == "2"
        assert answer.getheader("Connection") == "close"
        problem = json.loads(answer.read())
        assert (answer.status, problem["statusCode"]) == (503, 503)
        socks[2].sendall(request[-20_000:])  # it is no good body, but it is heard
        if kind == "chunked":
            socks[2].sendall(b"\r\n0\r\n\r\n")
        assert socks[2].recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_client_that_is_too_slow_itself_is_answered_400(receiver, platform_at):
    running = receiver(STORAGE_READ_TIMEOUT="1")
    slow = platform_at(running.url)
    path = f"{BASE}/states/{slow.tenant}"
    with dialled(running) as sock:
        sock.sendall(rendered("POST", path, slow.headers(path), b"[", 1000))
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == 400
        assert "ended early" in json.loads(answer.read())["message"]


def test_before_its_signature_holds_no_body_is_awaited(receiver, platform_at):
    running = receiver()
    slow = platform_at(running.url)
    path = f"{BASE}/states/{slow.tenant}"
    with dialled(running) as sock:
        headers = slow.headers(path)
        headers["X-ManyWho-Signature"] = headers["X-ManyWho-Signature"][:-9] + "A" * 9
        sock.sendall(rendered("POST", path, headers, b"[", 1000))
        began = time.monotonic()
        assert sock.recv(100).startswith(b"HTTP/1.1 401 ")
        assert time.monotonic() - began < 2
