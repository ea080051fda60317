"""Who a client is by its address, and who is let in."""

import pytest

from receiver.app import create_app
from receiver.mock_platform.client import BASE
from receiver.network.addresses import AccessPolicy, address_of
from receiver.settings import Settings
from tests.support.platform_client import InProcess, assert_problem

PROXY = "10.0.0.1/32"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7:4711 ", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1:443", "2001:db8::1:443"),
        ("unknown", "None"),
        ("", "None"),
        ("192.0.2.7:x", "None"),
        ("192.0.2.7" * 8000, "None"),
    ],
)
def test_an_address_is_read_as_sockets_and_proxies_write_it(text, address):
    assert str(address_of(text)) == address


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("10.0.0.1", "192.0.2.7", (), "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7", ("10.0.0.0/24",), "192.0.2.7"),
        ("::ffff:10.0.0.1", "192.0.2.7", ("10.0.0.0/24",), "192.0.2.7"),
        ("10.0.0.1", "192.0.2.7", ("::ffff:10.0.0.0/120",), "192.0.2.7"),
        ("10.0.1.1", "192.0.2.7", ("10.0.0.0/24",), "10.0.1.1"),
        ("10.0.0.1", "203.0.113.9, 192.0.2.7", (PROXY,), "192.0.2.7"),
        ("10.0.0.1", "203.0.113.9, 192.0.2.7, 10.0.0.9", ("10.0.0.0/24",), "192.0.2.7"),
        ("10.0.0.1", "10.0.0.8, 10.0.0.9", ("10.0.0.0/24",), "10.0.0.8"),
        ("10.0.0.1", "not an address", (PROXY,), "10.0.0.1"),
        ("10.0.0.1", "192.0.2.7, not an address", (PROXY,), "10.0.0.1"),
        ("10.0.0.1", "fe80::1%x 200 GET", (PROXY,), "fe80::1"),
        ("10.0.0.1", "", (PROXY,), "10.0.0.1"),
        ("", "192.0.2.7", (PROXY,), "-"),
        (None, "", (), "-"),
    ],
)
def test_a_forwarded_address_is_believed_from_trusted_proxies_only(peer, forwarded, trusted, address):
    assert AccessPolicy((), trusted).client(peer, forwarded) == address


@pytest.mark.parametrize(
    ("peer", "forwarded", "connects", "calls", "probes"),
    [
        ("192.0.2.7", "", True, True, True),
        ("::ffff:192.0.2.7", "", True, True, True),
        ("198.51.100.1", "", False, False, False),
        ("198.51.100.1", "192.0.2.7", False, False, False),  # forged: nobody trusted says so
        ("10.0.0.1", "192.0.2.7", True, True, True),
        ("10.0.0.1", "192.0.2.7, 198.51.100.1", True, False, True),  # forged by who called the proxy
        ("10.0.0.1", "192.0.2.7, ?", True, False, True),
        ("10.0.0.1", "", True, False, True),  # the proxy's own request: it may ask for health
        ("", "198.51.100.1", True, True, True),  # a Unix socket
    ],
)
def test_only_who_is_listed_comes_in(peer, forwarded, connects, calls, probes):
    gate = AccessPolicy(("192.0.2.0/24", "2001:db8::/32"), (PROXY,))
    assert gate.lets_in(peer) is connects
    assert gate.admits(peer, forwarded, is_probe=False) is calls
    assert gate.admits(peer, forwarded, is_probe=True) is probes


def test_all_come_in_where_nobody_is_listed():
    assert AccessPolicy().lets_in("198.51.100.1")
    assert AccessPolicy((), (PROXY,)).admits("10.0.0.1", "?", is_probe=False)


def test_a_client_behind_a_trusted_proxy_that_is_not_listed_is_told_so_before_anything_is_done(
    ring, store, keys, tenant, state, unchanged
):
    settings = Settings(allow_from=("192.0.2.0/24",), trusted_proxies=("127.0.0.1/32",))
    platform = InProcess(create_app(settings, ring, store).test_client(), tenant, keys)
    path = f"{BASE}/states/{tenant}"

    def from_address(address):
        return platform.headers(path) | {"X-Forwarded-For": address}

    with unchanged():
        for refused in (from_address("198.51.100.1"), platform.headers(path)):
            answer = platform.call("POST", path, b"[]", refused)
            assert_problem(answer, 403)
            assert "connection" not in answer.json["message"]
        assert_problem(platform.call("GET", "/nothing", headers={}), 403)
    assert platform.call("POST", path, b"[]", from_address("192.0.2.7")).status == 204
    assert platform.health().status == 200


@pytest.mark.parametrize("prefix", ["/flow", "/a%20b/c", "/api", "/api/storage/1"])
def test_the_platform_signs_the_path_that_it_calls_whether_or_not_a_proxy_takes_the_prefix_off(
    ring, store, keys, tenant, state, prefix
):
    platform = InProcess(create_app(Settings(public_prefix=prefix), ring, store).test_client(), tenant, keys)
    path = f"{BASE}/states/{tenant}/{state['id']}"
    for received in (path, prefix + path):
        assert_problem(platform.call("GET", received, headers=platform.headers(prefix + path)), 404, "no such state")
        for signed in (path, "/other" + path, prefix + prefix + path):
            answer = platform.call("GET", received, headers=platform.headers(signed))
            assert_problem(answer, 401)
            assert answer.json["uri"] == prefix + path
    assert platform.call("GET", prefix + BASE + "/health", headers={}).status == 200
    assert platform.call("GET", BASE + "/health", headers={}).status == 200
    assert_problem(platform.call("GET", "/else" + BASE + "/health", headers={}), 404)
