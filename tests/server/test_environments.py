"""Starting in odd places: a damaged database, a bare environment, a server of gunicorn's own, the Java service's port."""

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from receiver.mock_platform.flow_states import FlowRun, ticks
from receiver.settings import parsers
from tests.support.platform_client import assert_problem, loaded
from tests.support.serving import children_of, environment_of, serving
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow


@pytest.mark.case("G10")
def test_a_database_that_is_gone_or_damaged_stays_an_outage_when_a_worker_starts_anew(
    keys, platform_at, state, tmp_path
):
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        os.rename(tmp_path / "states.db", tmp_path / "moved.db")

        def replace_a_worker():
            before = children_of(running.process.pid)
            os.kill(before[0], signal.SIGKILL)
            until(lambda: before[0] not in (now := children_of(running.process.pid)) and len(now) >= 2)
            pass_time(1, "the new worker has opened its store, or has not")

        replace_a_worker()
        for _ in range(10):
            fresh = platform_at(running.url)
            assert fresh.load(state["id"]).status == 503
        (tmp_path / "states.db").write_bytes(b"this is no database " * 5000)
        replace_a_worker()
        for _ in range(10):
            assert platform_at(running.url).load(state["id"]).status in (500, 503)
        assert running.process.poll() is None


@pytest.mark.parametrize("worker_class", [None, "gthread", "receiver.server.worker.Worker", "receiver.worker.Worker"])
def test_gunicorn_can_run_the_application_itself(keys, platform_at, state, tmp_path, worker_class):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["-k", worker_class] if worker_class else []
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--no-control-socket",
            "-b",
            f"127.0.0.1:{port}",
            *options,
            "receiver.app:create_app()",
        ],
        env=environment_of(keys, tmp_path),
        stderr=subprocess.DEVNULL,
    )
    try:
        client = platform_at(f"http://127.0.0.1:{port}")

        def is_well():
            with contextlib.suppress(OSError):
                return client.health().status == 200

        until(is_well, pause=0.1)
        assert client.save(state).status == 204
        assert loaded(client, state["id"]) == state["content"]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_it_starts_in_a_bare_environment_on_a_unix_socket(keys, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", "serve"],
        env=environment_of(keys, tmp_path, STORAGE_BIND=f"unix:{tmp_path}/socket", LC_ALL="C", HOME="/nonexistent"),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        banner = "".join(itertools.takewhile(lambda line: "make demo" not in line, process.stdout))
        assert f"{tmp_path}/socket" in banner
        assert keys.platform.jwk.thumbprint() in banner
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{tmp_path}/socket")
            connection.sendall(b"GET /api/storage/1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_where_the_port_is_given_as_the_java_service_has_it_all_addresses_listen(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", "serve"],
        env=environment_of(keys, tmp_path, PORT=str(port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert any(f"http://{parsers.every_address(port)}" in line for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_no_store_at_the_start_is_a_mistake_and_none_later_is_an_outage(keys, platform_at, state, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "receiver", "serve"],
        env=environment_of(keys, tmp_path / "no" / "such"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 78
    assert "DATABASE_URL" in ran.stderr
    assert "is the volume mounted?" in ran.stderr
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        os.rename(tmp_path / "states.db", tmp_path / "moved.db")
        assert_problem(client.load(state["id"]), 503)
        os.rename(tmp_path / "moved.db", tmp_path / "states.db")
        assert loaded(client, state["id"]) == state["content"]


def test_times_are_written_as_the_platform_does():
    moment = FlowRun("t", 1).moment
    assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\d\.0000042[+]01:00", ticks(moment, 42))
