"""Where a receiver listens: IPv6 and IPv4 by PORT, and a clear end when the address is taken."""

import contextlib
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import BASE, Client
from receiver.server import listeners
from receiver.server.application import Server
from receiver.settings import Settings, SettingsMistakes, parsers, read
from tests.support.servers import free_port
from tests.support.serving import environment_of, serving
from tests.support.waiting import until

pytestmark = pytest.mark.slow

HAS_IPV6 = parsers.every_address(0).startswith("[::]")


@contextlib.contextmanager
def on_every_address(keys, folder, **settings):
    """Yield a receiver that PORT tells to listen, and the port."""
    port = free_port()
    with (
        open(folder / "log", "w") as log,
        running_receiver(keys, folder, log, PORT=str(port), STORAGE_BIND="", **settings) as running,
    ):
        yield running, port


def asked_for_health(host, port, tenant, keys) -> int:
    client = Client(f"http://{host}:{port}", tenant, keys)
    try:
        return client.call("GET", f"{BASE}/health", headers={}).status
    finally:
        client.close()


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_port_answers_on_ipv6_and_on_ipv4_whose_clients_keep_their_address(keys, tmp_path, tenant):
    with on_every_address(keys, tmp_path, STORAGE_ALLOW_FROM="127.0.0.1,::1") as (running, port):
        assert urlsplit(running.url).hostname == "::"
        assert asked_for_health("127.0.0.1", port, tenant, keys) == 200
        assert asked_for_health("[::1]", port, tenant, keys) == 200
        until(lambda: (tmp_path / "log").read_text().count("/health") >= 2)
    log = (tmp_path / "log").read_text()
    assert "::ffff:" not in log
    assert "127.0.0.1" in log


def test_a_kernel_without_ipv6_gets_ipv4(monkeypatch):
    real = socket.socket

    def without_ipv6(family=socket.AF_INET, *arguments, **options):
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    assert parsers.every_address(8080) == "0.0.0.0:8080"


def second_start(keys, folder, **settings) -> tuple[subprocess.CompletedProcess, float]:
    """Return what ``receiver serve`` came to beside the one that runs, and the seconds that it took."""
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "receiver", "serve"],
        env=environment_of(keys, folder, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended, time.monotonic() - began


@pytest.mark.parametrize("taken", ["STORAGE_BIND", "STORAGE_ADMIN_BIND"])
def test_a_second_start_says_who_runs_there_already(keys, tmp_path, taken):
    run_dir = {"STORAGE_RUN_DIR": str(tmp_path)}
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND="127.0.0.1:0", **run_dir) as running:
        address = urlsplit(running.url if taken == "STORAGE_BIND" else running.admin).netloc
        others = {"STORAGE_BIND": "127.0.0.1:0", "STORAGE_ADMIN_BIND": "off"} | run_dir
        ended, seconds = second_start(keys, tmp_path, **(others | {taken: address}))
        pid = running.process.pid
    assert ended.returncode == 75
    *_, line = ended.stderr.splitlines()  # run as root, it warns of that first
    assert re.match(rf"receiver: {taken}: {address} is taken: a receiver runs here already, pid {pid}, since 20", line)
    assert seconds < 4, "gunicorn alone tries for five seconds"
    assert not list(tmp_path.glob("receiver-*")), "both have taken their folders away"


def test_another_program_that_listens_is_named(keys, tmp_path):
    code = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        ended, _ = second_start(keys, tmp_path, STORAGE_BIND=f"127.0.0.1:{int(other.stdout.readline())}")
    finally:
        other.communicate()
    assert ended.returncode == 75
    assert re.search(rf"is taken: python\S* listens there, pid {other.pid}\. ", ended.stderr)


def test_a_unix_socket_in_use_is_not_taken_away(keys, tmp_path):
    bind = f"unix:{tmp_path}/socket"

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(f"{tmp_path}/socket") == 0

    for ending in (signal.SIGKILL, signal.SIGTERM):  # what one that was killed leaves behind is in nobody's way
        first = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            env=environment_of(keys, tmp_path, STORAGE_BIND=bind, STORAGE_WORKERS="1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(answers)
            ended, _ = second_start(keys, tmp_path, STORAGE_BIND=bind)
            assert ended.returncode == 75
            assert f"STORAGE_BIND: {bind} is taken" in ended.stderr
            assert answers()
        finally:
            first.send_signal(ending)
            first.wait(30)
        until(lambda: not answers())  # the workers of a master that was killed end by themselves


def test_an_address_that_is_let_go_meanwhile_is_taken(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = Server(Settings(bind=f"127.0.0.1:{port}", sources={"bind": ""}), None, print).cfg
        threading.Timer(0.2, listener.close).start()
        found = listeners.listen(config, logging.getLogger("a test"), "STORAGE_BIND", str(tmp_path))
    assert found[0].getsockname()[1] == port
    found[0].close()


def test_a_port_that_only_root_may_use_is_a_mistake_in_the_settings(monkeypatch, tmp_path):
    def refuse(*_, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("receiver.network.listeners.bound_socket", refuse)
    config = Server(Settings(bind="127.0.0.1:80", sources={"bind": ""}), None, print).cfg
    with pytest.raises(SettingsMistakes, match=r"STORAGE_BIND: cannot listen on 127.0.0.1:80: .*CAP_NET_BIND_SERVICE"):
        listeners.listen(config, logging.getLogger("a test"), "STORAGE_BIND", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORAGE_PORT", "tcp://10.96.0.7:80"),
        ("STORAGE_PORT", "tcp://[fd00::7]:80"),
        ("STORAGE_SERVICE_HOST", "10.96.0.7"),
        ("STORAGE_SERVICE_PORT_HTTP", "80"),
        ("STORAGE_PORT_80_TCP_ADDR", "10.96.0.7"),
        ("STORAGE_API_PORT_80_TCP", "tcp://10.96.0.7:80"),
    ],
)
def test_what_kubernetes_sets_for_a_service_is_named_as_that(name, value):
    _, mistakes = read({name: value})
    assert [one for one in mistakes if "enableServiceLinks: false" in one and one.startswith(f"{name}: ")]


def test_a_port_of_ones_own_is_still_only_unknown():
    _, (mistake,) = read({"STORAGE_PORT": "8080"})
    assert "there is no such setting" in mistake
