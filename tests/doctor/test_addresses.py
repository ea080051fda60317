"""The doctor at a receiver's address: client lists, Unix sockets, TLS and client certificates."""

import os
import subprocess
import sys

import pytest

from receiver.mock_platform.keys import new_store
from receiver.process.running import services
from tests.support import certificates as authority
from tests.support.doctoring import doctor, serving, until
from tests.support.key_files import put

pytestmark = pytest.mark.slow


def test_who_is_kept_out_is_told_what_is_in_the_way(tmp_path):
    with serving(tmp_path, STORAGE_ALLOW_FROM="192.0.2.1") as running:
        doctor("--roundtrip", **running.environ).one("roundtrip", "fail", "STORAGE_ALLOW_FROM keeps 127.0.0.1", "--url")


def test_a_receiver_on_a_unix_socket_needs_its_public_address(tmp_path):
    put(tmp_path / "keys", new_store())
    (tmp_path / "run").mkdir()
    environ = {
        "STORAGE_BIND": f"unix:{tmp_path}/s",
        "STORAGE_RUN_DIR": str(tmp_path / "run"),
        "STORAGE_ADMIN_BIND": f"unix:{tmp_path}/a",
    }
    environ |= {"STORAGE_KEYS": str(tmp_path / "keys"), "DATABASE_URL": f"sqlite:///{tmp_path}/states.db"}
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **environ}
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "receiver", "serve"], env=clean, stdout=log, stderr=log)
    try:
        until(lambda: services(str(tmp_path / "run")))
        report = doctor("--roundtrip", **environ)
        report.one("roundtrip", "fail", "Unix socket only", "--url")
        assert f"unix:{tmp_path}/s" in report.one("service", "ok", "ready").message
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("until_", [90, -1])
def test_a_receiver_that_speaks_tls_is_known_by_its_own_certificate(tmp_path, until_):
    variables = authority.write(tmp_path, until=authority.days(until_), since=authority.days(-9))
    with serving(tmp_path, **variables) as running:
        report = doctor("--roundtrip", **running.environ)
        assert running.url.startswith("https")
        report.one("roundtrip", "ok")
        authority.write(tmp_path, until=authority.days(until_), since=authority.days(-9))  # another one, not taken yet
        report = doctor("--roundtrip", **running.environ)
        assert report.of("roundtrip")


def test_client_certificates_are_shown_where_they_are_asked_for(tmp_path):
    variables = authority.write(tmp_path, until=authority.days(90))
    authority.AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    with serving(tmp_path, STORAGE_TLS_CLIENT_CA=str(tmp_path / "ca.pem"), **variables) as running:
        doctor("--roundtrip", **running.environ).one(
            "roundtrip", "fail", "asks for a client certificate", "--client-cert"
        )
        words = ("--client-cert", str(tmp_path / "server.pem"), "--client-key", str(tmp_path / "server.key"))
        doctor("--roundtrip", *words, **running.environ).one("roundtrip", "ok")
