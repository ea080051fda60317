"""TLS in the process: who gets through, what is refused and how it is told, and that nobody holds a thread with it."""

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import time
import warnings
from urllib.parse import urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from receiver.bootstrap import configure
from receiver.mock_platform.client import BASE
from receiver.network import tls
from receiver.secret import Secret
from receiver.settings import Settings, SettingsMistakes
from tests.support import certificates
from tests.support.platform_client import loaded
from tests.support.serving import serving
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

READ_TIMEOUT = 3
HEALTH = f"GET {BASE}/health HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def running(keys, folder):
    few = {"STORAGE_WORKERS": "1", "STORAGE_THREADS": "1", "STORAGE_READ_TIMEOUT": str(READ_TIMEOUT)}
    with serving(keys, folder, STORAGE_MAX_BODY="64MiB", **few, **certificates.write(folder)) as found:
        yield found
    assert "Traceback" not in (folder / "log").read_text()


def dialled(running):
    return socket.create_connection((urlsplit(running.url).hostname, urlsplit(running.url).port), timeout=20)


def secured(running, context=None, **options):
    return (context or certificates.trusting()).wrap_socket(dialled(running), server_hostname="127.0.0.1", **options)


def until_said(folder, text):
    """Wait until the log says ``text``; returns the line."""
    log = folder / "log"
    return until(lambda: [line for line in log.read_text().splitlines() if text in line], message=text)[-1]


def everything_from(connection):
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_states_are_saved_and_loaded_over_tls(running, platform_at, state):
    assert running.url.startswith("https://127.0.0.1:")
    client = platform_at(running.url, certificates.trusting())
    assert client.save(state).status == 204
    assert loaded(client, state["id"]) == state["content"]
    assert client.connection.sock.version() == "TLSv1.3"
    assert client.connection.sock.compression() is None


@pytest.mark.case("B11")
def test_large_bodies_make_the_round_trip_over_tls(running, platform_at, state):
    state["content"] = json.dumps({"page": os.urandom(4_000_000).hex()})
    client = platform_at(running.url, certificates.trusting())
    assert client.save(state, compressed=False).status == 204
    assert loaded(client, state["id"]) == state["content"]


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_tls_1_2_is_spoken_with_ephemeral_keys_and_authenticated_encryption(running, cipher):
    context = certificates.trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher)
    with secured(running, context) as connection:
        assert connection.cipher()[:2] == (cipher, "TLSv1.2")


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-SHA384"),
        (ssl.TLSVersion.TLSv1_2, "AES256-GCM-SHA384"),
    ],
)
def test_older_versions_and_other_ciphers_are_refused(running, folder, version, ciphers):
    context = certificates.trusting()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    context.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError), secured(running, context):
        pass
    assert re.search(r"WARNING closed: no TLS with 127\.0\.0\.1, \w+", until_said(folder, "no TLS with"))


def test_plain_http_is_closed_with_a_line_that_helps(keys, tmp_path):
    with serving(keys, tmp_path, **certificates.write(tmp_path)) as running:
        with dialled(running) as connection:
            connection.sendall(f"{HEALTH}\r\n".encode())
            assert not everything_from(connection).startswith(b"HTTP")
        line = until_said(tmp_path, "no TLS with")
        assert "it speaks plain HTTP: its URL must begin with https (1 times" in line
        with dialled(running):  # who only looks whether somebody is there is not worth a line
            pass
        for _ in range(20):
            with dialled(running) as connection, contextlib.suppress(ConnectionResetError):
                connection.sendall(b"\x00" * 100)
                everything_from(connection)
        with secured(running) as connection:
            connection.sendall(f"{HEALTH}Connection: close\r\n\r\n".encode())
            assert everything_from(connection).startswith(b"HTTP/1.1 200 ")
    log = (tmp_path / "log").read_text()
    assert log.count("no TLS with") <= 2  # of each worker
    assert "Traceback" not in log


def test_only_clients_with_a_certificate_are_answered_where_authorities_are_named(keys, tmp_path, platform_at, state):
    certificates.AUTHORITY.cert_pem.write_to_path(tmp_path / "clients.pem")
    variables = certificates.write(tmp_path) | {"STORAGE_TLS_CLIENT_CA": str(tmp_path / "clients.pem")}
    stranger = certificates.trusting()
    trustme.CA().issue_cert("client@example.com").configure_cert(stranger)
    with serving(keys, tmp_path, STORAGE_WORKERS="1", **variables) as running:
        for _ in range(2):  # the second time it could try to resume what it never had
            client = platform_at(running.url, certificates.trusting(with_certificate=True))
            assert client.save(state).status == 204
        for refused in (certificates.trusting(), stranger):
            with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                platform_at(running.url, refused).health()
        assert "it showed no certificate" in until_said(tmp_path, "no TLS with")
        platform_at.close()


def test_requests_that_come_in_one_record_are_all_answered_and_the_end_is_said(running):
    with secured(running, suppress_ragged_eofs=False) as connection:
        connection.sendall(f"{HEALTH}\r\n{HEALTH}\r\n{HEALTH}Connection: close\r\n\r\n".encode())
        assert everything_from(connection).count(b"HTTP/1.1 200 ") == 3  # without close_notify it would raise


def test_neither_handshakes_nor_heads_nor_bodies_without_an_end_hold_the_only_thread(running, platform_at):
    client = platform_at(running.url, certificates.trusting())
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        certificates.trusting().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
    hello = hello.read()
    path = f"{BASE}/states/{client.tenant}"
    signed = "".join(f"{name}: {value}\r\n" for name, value in client.headers(path).items())
    dripping = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n{signed}"
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(dialled(running)) for _ in range(30)]
        for connection in waiting[10:20]:
            connection.sendall(hello[:100])
        for connection in waiting[20:]:
            connection.sendall(hello)
        for text in (HEALTH, f"{dripping}\r\n["):
            for _ in range(10):
                waiting.append(stack.enter_context(secured(running)))
                waiting[-1].sendall(text.encode())
        pass_time(0.3, "all of it has come")
        began = time.monotonic()
        assert client.health().status == 200
        assert time.monotonic() - began < READ_TIMEOUT - 0.5  # who held the thread would for longer
        for connection in waiting:
            with contextlib.suppress(ConnectionResetError):
                everything_from(connection)
        assert READ_TIMEOUT - 1 < time.monotonic() - began < READ_TIMEOUT + 10


def test_a_reply_that_is_not_taken_over_tls_holds_nobody_up(running, platform_at, state):
    client = platform_at(running.url, certificates.trusting())
    state["content"] = os.urandom(4_000_000).hex()
    assert client.save(state, compressed=False).status == 204
    path = f"{BASE}/states/{client.tenant}/{state['id']}"
    signed = "".join(f"{name}: {value}\r\n" for name, value in client.headers(path).items())
    with secured(running) as lazy:
        lazy.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{signed}\r\n".encode())
        pass_time(1, "the reply fills what the kernel keeps of it")
        began = time.monotonic()
        assert client.health().status == 200
        assert time.monotonic() - began < READ_TIMEOUT - 0.5  # who held the thread would for longer
        assert len(everything_from(lazy)) > 5_000_000  # it was only late


def mistakes_of(folder, **changes):
    given = {"tls_cert": str(folder / "server.pem"), "tls_key": str(folder / "server.key")} | changes
    return tls.load(
        Settings(**{name: value if isinstance(value, Secret) else str(value) for name, value in given.items() if value})
    )[1]


def protected(folder, passphrase):
    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    text = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(passphrase))
    (folder / "protected.key").write_bytes(text)
    (folder / "protected.key").chmod(0o600)
    return folder / "protected.key"


def test_what_is_wrong_with_certificates_is_named(tmp_path):
    certificates.write(tmp_path)
    certificates.write(tmp_path, "other")
    (tmp_path / "empty").touch(0o600)
    assert mistakes_of(tmp_path) == []
    assert mistakes_of(tmp_path, tls_key="") == ["STORAGE_TLS_KEY: must be set when STORAGE_TLS_CERT is"]
    assert mistakes_of(tmp_path, tls_cert="") == ["STORAGE_TLS_CERT: must be set when STORAGE_TLS_KEY is"]
    assert "is not the key of the certificate" in mistakes_of(tmp_path, tls_key=tmp_path / "other.key")[0]
    for name, path in (("tls_cert", "empty"), ("tls_cert", "server.key"), ("tls_key", "empty"), ("tls_key", "gone")):
        (mistake,) = mistakes_of(tmp_path, **{name: tmp_path / path})
        assert mistake.startswith(f"STORAGE_{name.upper()}: must hold "), mistake
    assert mistakes_of(tmp_path, tls_client_ca=tmp_path / "empty")[0].startswith("STORAGE_TLS_CLIENT_CA: must hold ")
    assert len(tls.load(Settings(tls_client_ca=str(tmp_path / "server.pem")))[1]) == 2


def test_a_protected_key_opens_with_the_passphrase_only(tmp_path):
    certificates.write(tmp_path)
    key = protected(tmp_path, b"open sesame")
    assert mistakes_of(tmp_path, tls_key=key, key_passphrase=Secret("open sesame")) == []
    for wrong in ("", "another"):
        assert "STORAGE_KEY_PASSPHRASE" in mistakes_of(tmp_path, tls_key=key, key_passphrase=Secret(wrong))[0]


def test_a_key_that_everybody_can_read_is_refused_or_warned_about(tmp_path):
    certificates.write(tmp_path)
    (tmp_path / "server.key").chmod(0o644)
    assert "everybody on this machine may use the private key" in mistakes_of(tmp_path)[0]
    assert mistakes_of(tmp_path, insecure_keys="warn") == []


@pytest.mark.parametrize(("since", "until"), [(-10, -1), (1, 10)])
def test_a_certificate_out_of_its_time_is_a_warning(tmp_path, since, until):
    certificates.write(tmp_path, since=certificates.days(since), until=certificates.days(until))
    terms, mistakes = tls.load(Settings(tls_cert=str(tmp_path / "server.pem"), tls_key=str(tmp_path / "server.key")))
    assert mistakes == []
    (warning,) = terms.warnings
    assert "not now" in warning


def test_mistakes_of_tls_stop_a_start_like_all_others(tmp_path, monkeypatch):
    for name, value in certificates.write(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_TLS_KEY", str(tmp_path / "gone"))
    monkeypatch.setenv("STORAGE_KEYS", str(tmp_path))
    with pytest.raises(SettingsMistakes) as refused:
        configure()
    assert [line for line in refused.value.mistakes if "TLS" in line] == [
        "STORAGE_TLS_KEY: must be the path of a file that exists"
    ]
