"""Proxies that do not suit the receiver: its log says how."""

import contextlib
import uuid

import pytest

import receiver.conformance.checks  # noqa: F401 - declares them
from receiver.mock_platform.client import BASE
from tests.support.deployed_proxies import KINDS, Platform, Receiver, a_proxy, replaced
from tests.support.servers import needed
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(params=KINDS)
def kind(request):
    needed(request.param)
    return request.param


@pytest.mark.parametrize(
    ("kind", "line", "instead", "told"),
    [
        ("haproxy", "    default-server ", "    default-server send-proxy ", "the PROXY protocol, version 1"),
        ("haproxy", "    default-server ", "    default-server send-proxy-v2 ", "the PROXY protocol, version 2"),
        ("haproxy", "    default-server ", "    default-server ssl verify none no-check-ssl ", "it speaks TLS"),
        ("nginx", "proxy_pass http://receiver; ", "proxy_pass https://receiver; ", "it speaks TLS"),
    ],
)
def test_another_protocol_from_a_proxy_is_named_at_once(monkeypatch, keys, tmp_path, kind, line, instead, told):
    needed(kind)
    sample, write = KINDS[kind]
    monkeypatch.setitem(KINDS, kind, (lambda *given: replaced(sample(*given), {line: instead}), write))
    with (
        Receiver(keys, tmp_path / "behind", STORAGE_READ_TIMEOUT="60") as behind,
        a_proxy(kind, [behind]) as proxy,
        contextlib.closing(Platform(proxy.url, str(uuid.uuid4()), keys)) as client,
    ):
        until(lambda: client.health().status and told in behind.log)
        assert client.health().status in (400, 502, 503)
    assert "Traceback" not in behind.log


def test_a_mesh_that_adds_large_headers_is_named_and_let_through_where_that_is_set(kind, keys, tmp_path):
    certificate = {"X-Forwarded-Client-Cert": "hunter2" * 1700}
    for number, (most, status) in enumerate((("", 431), ("16KiB", 200))):
        with (
            Receiver(keys, tmp_path / str(number), STORAGE_MAX_HEADER=most) as behind,
            a_proxy(kind, [behind]) as proxy,
        ):
            with contextlib.closing(Platform(proxy.url, str(uuid.uuid4()), keys)) as client:
                assert client.call("GET", f"{BASE}/health", headers=certificate).status == status
            found = "the header X-Forwarded-Client-Cert has 11" in behind.log.replace(
                "x-forwarded-client-cert", "X-Forwarded-Client-Cert"
            )
            assert found == (status == 431)
            assert "hunter2" not in behind.log
