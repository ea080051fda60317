"""Connections that are slow, idle, not listed or too many."""

import contextlib
import http.client
import json
import os
import resource
import socket
import time

import pytest

from tests.support.platform_client import loaded
from tests.support.serving import SECONDS, address_of, children_of, serving
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow


def test_clients_that_send_a_byte_now_and_then_hold_nobody_up(keys, platform_at, state, tmp_path):
    few = {"STORAGE_WORKERS": "1", "STORAGE_THREADS": "2"}
    with serving(keys, tmp_path, **few) as running, contextlib.ExitStack() as stack:
        client = platform_at(running.url)
        path = f"/api/storage/1/states/{client.tenant}"
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 100000"]
        captured = [f"{name}: {value}" for name, value in client.headers(path).items()]
        began, open_ = time.monotonic(), []
        for _ in range(40):
            open_.append(stack.enter_context(socket.create_connection(address_of(running))))
            open_[-1].sendall("\r\n".join([*lines, *captured, "", ""]).encode())
        slowest = 0.0
        while open_ and time.monotonic() - began < 15:
            asked = time.monotonic()
            assert client.save(state).status == 204
            slowest = max(slowest, time.monotonic() - asked)
            for dripping in [*open_]:
                try:
                    dripping.sendall(b" ")
                    if dripping.recv(1, socket.MSG_DONTWAIT):
                        open_.remove(dripping)  # it was answered
                except BlockingIOError:
                    pass
            pass_time(0.2, "how slowly these clients send")
        assert open_ == []
        assert time.monotonic() - began >= 5
        assert slowest < 4  # held threads would be for five seconds at least
        (worker,) = children_of(running.process.pid)
        assert len(os.listdir(f"/proc/{worker}/task")) <= 4  # those that were started for the others have ended
        client.close()


def test_addresses_that_are_not_listed_are_cut_off_and_do_not_flood_the_log(keys, tmp_path):
    listed = {"STORAGE_ALLOW_FROM": "192.0.2.0/24", "STORAGE_WORKERS": "1"}
    with serving(keys, tmp_path, **listed) as running:
        for _ in range(30):
            with (
                socket.create_connection(address_of(running), timeout=10) as connection,
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(b"GET /api/storage/1/health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(100) == b""
    log = (tmp_path / "log").read_text()
    assert log.count("closed: 127.0.0.1 is not one of STORAGE_ALLOW_FROM (1 times") == 1
    assert log.count("STORAGE_ALLOW_FROM") == 1
    with serving(keys, tmp_path, STORAGE_TRUSTED_PROXIES="127.0.0.1", **listed) as running:
        connection = http.client.HTTPConnection(*address_of(running), timeout=10)
        for forwarded, status in (("192.0.2.7", 404), ("192.0.2.7, 198.51.100.1", 403)):
            connection.request("GET", "/api/storage/1/nothing", headers={"X-Forwarded-For": forwarded})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["statusCode"]) == (status, status)
        connection.request("GET", "/api/storage/1/health")
        assert connection.getresponse().status == 200
        connection.close()


def test_idle_connections_beyond_a_thousand_keep_nobody_out(keys, platform_at, state, tmp_path):
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2_000
    assert most == resource.RLIM_INFINITY or most >= needed, "the machine lets nobody open that many files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), most))
    try:
        few = {"STORAGE_WORKERS": "1", "STORAGE_READ_TIMEOUT": "300"}  # longer than a client waits
        with serving(keys, tmp_path, **few) as running, contextlib.ExitStack() as stack:
            for _ in range(1_200):
                stack.enter_context(socket.create_connection(address_of(running)))
            client = platform_at(running.url)
            assert client.save(state).status == 204
            assert loaded(client, state["id"]) == state["content"]
            platform_at.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


def test_a_worker_without_file_descriptors_waits_for_some(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_WORKERS="1") as running:
        client = platform_at(running.url)
        assert client.health().status == 200
        (worker,) = children_of(running.process.pid)
        used = len(os.listdir(f"/proc/{worker}/fd"))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(address_of(running)))
            pass_time(1, "connections wait for a file descriptor")
            assert client.health().status == 200  # those that are in are served
        deadline = time.monotonic() + SECONDS  # until the worker has let go of them
        while platform_at(running.url).health().status != 200:
            assert time.monotonic() < deadline
        assert children_of(running.process.pid) == [worker]
        platform_at.close()
    log = (tmp_path / "log").read_text()
    assert log.count("cannot accept new connections: Too many open files") == 1
    assert "Traceback" not in log
