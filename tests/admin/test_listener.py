"""The admin listener: what it answers, where it listens, and who asks it."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest

from receiver.admin import readiness
from receiver.admin.client import AdminClient
from tests.support.admin import readyz, serving
from tests.support.commands import receiver
from tests.support.serving import children_of, environment_of
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def admin_of(running) -> int:
    """Return the process id of the admin listener: the child that is no worker."""
    workers = re.findall(r"Booting worker with pid: (\d+)", (running.folder / "log").read_text())
    (found,) = set(children_of(running.process.pid)) - set(map(int, workers))
    return found


def test_a_receiver_that_is_well_says_so_check_by_check(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        assert AdminClient(running.admin).get_json("/livez") == (200, {"status": "alive"})
        status, found = until(lambda: (answer := readyz(running))[0] == 200 and answer)
        assert (status, found["status"]) == (200, "ready")
        assert set(found["checks"]) == set(readiness.NAMES)
        assert {check["verdict"] for check in found["checks"].values()} == {"ok"}
        assert "1 platform, 1 receiver" in found["checks"]["keys"]["told"]
        assert found["checks"]["workers"]["told"] == "2 of 2 run"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("POST", "/readyz", 405),
        ("DELETE", "/livez", 405),
        ("HEAD", "/livez", 200),
    ],
)
def test_nothing_else_is_answered(keys, admin, method, path, status):
    parts = urlsplit(admin.admin)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request(method, path)
    assert connection.getresponse().status == status
    connection.close()


def test_the_calls_are_not_answered_there_nor_probes_here(admin):
    for url, path in ((admin.admin, "/api/storage/1/health"), (admin.url, "/readyz"), (admin.url, "/metrics")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url + path)
        assert refused.value.code == 404
        refused.value.close()


def test_an_admin_listener_that_is_killed_comes_again_and_no_call_notices(keys, platform_at, tmp_path):
    with serving(keys, tmp_path) as running:
        running.folder = tmp_path
        until(lambda: len(children_of(running.process.pid)) == 3)
        first = admin_of(running)
        os.kill(first, signal.SIGKILL)
        assert platform_at(running.url).health().status == 200

        def is_back():
            with contextlib.suppress(OSError):
                return readyz(running)[0] == 200

        until(is_back)
        assert admin_of(running) != first


def test_an_address_that_is_taken_stops_the_start(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        environ = environment_of(keys, tmp_path, STORAGE_BIND="127.0.0.1:0", STORAGE_ADMIN_BIND=address)
        command = [sys.executable, "-m", "receiver", "serve"]
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 75
    assert f"STORAGE_ADMIN_BIND: {address} is taken: " in ran.stderr
    assert ran.stderr.endswith(
        f", pid {os.getpid()}. Stop that process, or set STORAGE_ADMIN_BIND to another address or to off\n"
    )


def test_a_unix_socket_will_do_and_none_at_all(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND=f"unix:{tmp_path}/admin.sock"):
        assert until(lambda: AdminClient(f"unix:{tmp_path}/admin.sock").get_json("/readyz")[0] == 200)
        told = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND=f"unix:{tmp_path}/admin.sock")
        assert (told.returncode, told.stdout) == (0, "ready\n")
    assert not (tmp_path / "admin.sock").exists()
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND="off") as running:
        assert running.admin == "off"
        assert platform_at(running.url).health().status == 200
        until(lambda: len(children_of(running.process.pid)) == 2)
    told = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND="off")
    assert told.returncode == 1 and "nobody to ask" in told.stderr


def test_receiver_health_tells_by_its_exit_status(keys, tmp_path):
    with serving(keys, tmp_path) as running:
        address = running.admin.removeprefix("http://")
        until(lambda: readyz(running)[0] == 200)
        assert receiver("health", "--live", cwd=tmp_path, STORAGE_ADMIN_BIND=address).stdout == "alive\n"
        asked = receiver("health", "--json", cwd=tmp_path, STORAGE_ADMIN_BIND=address)
        assert (asked.returncode, json.loads(asked.stdout)["status"]) == (0, "ready")
        (tmp_path / "states.db").rename(tmp_path / "aside")
        until(lambda: readyz(running)[0] == 503)
        asked = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND=address)
        assert asked.returncode == 1
        assert asked.stdout.startswith("not ready\n  store: fail, ")
    asked = receiver("health", cwd=tmp_path, STORAGE_ADMIN_BIND=address)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "no answer at" in asked.stderr
