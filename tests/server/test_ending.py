"""The end of a receiver: signals and kills lose nothing that was acknowledged."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
import uuid

import pytest

from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun
from tests.support.platform_client import loaded
from tests.support.serving import children_of, serving
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow


def test_sigterm_finishes_what_runs_and_exits_0(keys, platform_at, tenant, state, tmp_path):
    with serving(keys, tmp_path) as running:
        path = f"/api/storage/1/states/{tenant}"
        body = json.dumps([{"token": tokens.seal_state(state, keys)}]).encode()
        host, port = running.url.removeprefix("http://").split(":")
        slow = http.client.HTTPConnection(host, int(port), timeout=30)
        headers = platform_at(running.url).headers(path)
        slow.putrequest("POST", path)
        for name, value in (headers | {"Content-Type": "application/json", "Content-Length": str(len(body))}).items():
            slow.putheader(name, value)
        slow.endheaders(body[:100])
        pass_time(0.5, "the head has come and the body is awaited")
        running.process.send_signal(signal.SIGTERM)
        pass_time(0.5, "the worker has begun to end")
        slow.send(body[100:])
        response = slow.getresponse()
        assert (response.status, response.read()) == (204, b"")
        slow.close()
        assert running.process.wait(30) == 0
    with serving(keys, tmp_path) as running:
        assert loaded(platform_at(running.url), state["id"]) == state["content"]


@pytest.mark.case("G05")
def test_sigterm_under_load_loses_no_answered_save_and_exits_0(keys, platform_at, tenant, tmp_path):
    saved, lock = {}, threading.Lock()

    def write(url, seed):
        flow, client = FlowRun(tenant, seed), platform_at(url)
        with contextlib.suppress(http.client.HTTPException, OSError):
            while True:
                flow.step()
                state = flow.state()
                assert client.save(state).status in (204, 503)
                with lock:
                    saved[flow.id] = state["content"]

    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="warning") as running:
        threads = [threading.Thread(target=write, args=(running.url, seed)) for seed in range(12)]
        for thread in threads:
            thread.start()
        pass_time(2, "load before the end")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(35) == 0
        for thread in threads:
            thread.join()
    assert len(saved) == 12
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        for id, content in saved.items():
            stored = loaded(client, id)
            assert stored == content or len(stored) > len(content)  # one more may be stored without an answer


@pytest.mark.case("G01", "G02")
def test_killed_workers_and_masters_lose_nothing_that_was_acknowledged(keys, platform_at, tenant, tmp_path):
    def until_answered(call):
        for _ in range(200):
            try:
                answer = call()
            except (http.client.HTTPException, OSError):
                pass_time(0.05, "nobody answers while a worker is missing")
                continue
            if answer.status < 500:
                return answer
        raise AssertionError("no answer")

    flow, contents = FlowRun(tenant, 5), {}
    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="warning") as running:
        client = platform_at(running.url)
        for number in range(40):
            state = flow.state() | {"id": str(uuid.UUID(int=number)), "content": f"content {number}"}
            assert until_answered(lambda state=state: client.save(state)).status == 204
            contents[state["id"]] = state["content"]
            if number % 4 == 0:
                alive = children_of(running.process.pid)
                os.kill(alive[number % len(alive)], signal.SIGKILL)
        workers = children_of(running.process.pid)
        running.process.kill()
        running.process.wait()
        until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), seconds=30)
    began = time.monotonic()
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.health().status == 200
        assert time.monotonic() - began < 5
        for id, content in contents.items():
            assert loaded(client, id) == content


def test_a_keep_alive_connection_is_told_when_the_worker_stops(keys, platform_at, tmp_path):
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.health().headers["connection"] == "keep-alive"
        running.process.send_signal(signal.SIGTERM)
        pass_time(0.3, "the worker has begun to end")
        assert client.health().headers["connection"] == "close"
        assert running.process.wait(30) == 0


@pytest.mark.parametrize("sent", [b"", b"GET /api/storage/1/hea"])
def test_connections_without_a_request_do_not_delay_the_end(keys, tmp_path, sent):
    with serving(keys, tmp_path) as running:
        host, port = running.url.removeprefix("http://").split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                connection = stack.enter_context(socket.create_connection((host, int(port))))
                connection.sendall(sent)
            pass_time(0.5, "the worker has taken the connections")
            began = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(30) == 0
            assert time.monotonic() - began < 6


def test_a_client_that_does_not_take_its_reply_is_left(keys, platform_at, state, tmp_path):
    state["content"] = os.urandom(6_000_000).hex()
    few = {"STORAGE_WORKERS": "1", "STORAGE_THREADS": "1", "STORAGE_READ_TIMEOUT": "1"}
    with serving(keys, tmp_path, STORAGE_MAX_BODY="64MiB", **few) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        path = f"/api/storage/1/states/{client.tenant}/{state['id']}"
        lines = [f"{name}: {value}" for name, value in client.headers(path).items()]
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as lazy:
            lazy.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode())
            pass_time(1, "the reply fills what the kernel keeps of it")
            client.close()
            began = time.monotonic()
            assert client.health().status == 200
            assert time.monotonic() - began < 25
    assert "Traceback" not in (tmp_path / "log").read_text()
