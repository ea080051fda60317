"""gunicorn as it is configured: what is safe by default, and what follows the settings."""

import json
import os
import subprocess
import sys

import pytest

from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import Client
from receiver.secret import Secret
from receiver.server import worker
from receiver.server.application import Server
from receiver.settings import Settings


def serving(**changes):
    return Server(Settings(**changes), None, lambda _addresses: None)


def configured(**changes):
    return serving(**changes).cfg


def test_the_defaults_are_safe():
    cfg = configured()
    assert cfg.control_socket_disable is True
    assert cfg.header_map == "drop"
    assert cfg.forwarded_allow_ips == []
    assert cfg.forwarder_headers == []
    assert (cfg.limit_request_line, cfg.limit_request_fields, cfg.limit_request_field_size) == (4094, 100, 8190)
    assert cfg.worker_class is worker.Worker
    assert cfg.preload_app is False
    assert cfg.keepalive > 120, "Caddy keeps idle connections for two minutes, Traefik for 90 s"


def test_the_settings_are_followed():
    server = serving(
        bind="127.0.0.1:1",
        workers=3,
        threads=5,
        graceful_timeout=7,
        read_timeout=11.0,
        trusted_proxies=("10.0.0.1/32",),
        max_header=16384,
        keep_alive=200,
        sources={"bind": "STORAGE_BIND"},
    )
    cfg = server.cfg
    assert (cfg.bind, cfg.workers, cfg.threads, cfg.graceful_timeout) == (["127.0.0.1:1"], 3, 5, 7)
    assert server.read_timeout == 11.0
    assert (cfg.limit_request_field_size, cfg.keepalive) == (16384, 200)
    assert [str(network) for network in cfg.forwarded_allow_ips] == ["10.0.0.1/32"]


@pytest.mark.parametrize(("level", "gunicorn"), [("debug", "info"), ("info", "info"), ("error", "error")])
def test_gunicorn_never_logs_at_debug(level, gunicorn):
    assert configured(log_level=level).loglevel == gunicorn


def test_the_store_timeout_reaches_the_store(keys, ring):
    served = Server(
        Settings(store_timeout=1.5, database_url=Secret("sqlite:////no/such/x.db")), ring, lambda _addresses: None
    ).load()
    assert served.extensions["receiver"].store.inner.inner.timeout == 1.5
    assert served.extensions["receiver"].store.inner.inner._file.create is False


def test_no_control_socket_is_opened(keys, tmp_path, tenant):
    home = tmp_path / "home"
    home.mkdir()
    with (
        open(tmp_path / "log", "w") as log,
        running_receiver(keys, tmp_path, log, HOME=str(home), XDG_RUNTIME_DIR=str(home)) as running,
    ):
        client = Client(running.url, tenant, keys)
        assert client.health().status == 200
        client.close()
        assert os.listdir(home) == []


def test_a_start_with_a_bad_key_is_refused_and_the_key_is_not_printed(keys, tmp_path):
    members = keys.receiver.private() | {"crv": "P-256"}
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), "RECEIVER_KEY": json.dumps(members)}
    command = [sys.executable, "-m", "receiver", "serve"]
    ran = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ran.returncode == 78
    assert "RECEIVER_KEY: must be an EC key on P-384" in ran.stderr
    assert members["d"] not in ran.stdout + ran.stderr
