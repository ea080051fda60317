"""Heads that are refused: the log names the header and never its value, and says what else than HTTP was sent."""

import contextlib
import json
import socket
import ssl
from urllib.parse import urlsplit

import pytest

from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import BASE, Client
from receiver.server.heads import foreign
from tests.support import certificates
from tests.support.waiting import until

pytestmark = pytest.mark.slow

HEALTH = f"GET {BASE}/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n".encode()
SECRET = b"hunter2"
PROXY_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 8080\r\n"
PROXY_2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12)


@contextlib.contextmanager
def logged(keys, folder, **settings):
    """Yield a receiver and a function that waits until a line of its log holds a text."""
    path = folder / "log"
    with open(path, "w") as log, running_receiver(keys, folder, log, STORAGE_WORKERS="1", **settings) as running:
        yield running, lambda text: until(lambda: [line for line in path.read_text().splitlines() if text in line])


@pytest.fixture(scope="module")
def plain(keys, tmp_path_factory):
    with logged(keys, tmp_path_factory.mktemp("heads")) as found:
        yield found


def answer_to(running, *pieces, context=None) -> bytes:
    """Return all that comes back for ``pieces``, each sent by itself, until the receiver closes."""
    parts = urlsplit(running.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        (b"X-Forwarded-Client-Cert: " + SECRET * 1300, 431, "the header X-Forwarded-Client-Cert has 9127 bytes"),
        (b"X-Cert: " + SECRET * 20000, 431, "the header X-Cert has"),
        (b"X-Bad Name: " + SECRET, 400, "InvalidHeaderName: the header X-Bad and a blank"),
        (b"Cookie a=" + SECRET + b"; t=12:30", 400, "InvalidHeaderName: the header Cookie and a blank"),
        (b"X-A\x1b[31m: " + SECRET, 400, r"InvalidHeaderName: the header X-A\x1b[31m"),
        (b"X-Value: \x01" + SECRET, 400, "InvalidHeader: the header X-VALUE"),
        (b"X-One: 1\r\n " + SECRET, 400, "ObsoleteFolding: the header X-ONE"),
        (SECRET * 3, 400, "InvalidHeader: a line without a colon"),
        (
            b"\r\n".join(b"X-%d: %s" % (number, SECRET) for number in range(101)),
            431,
            "100 are allowed, the first beyond them is X-98",
        ),
        (b"Transfer-Encoding: " + SECRET, 501, "UnsupportedTransferCoding: the header Transfer-Encoding"),
        (b"Expect: " + SECRET, 417, "ExpectationFailed: the header Expect"),
        (b"N" * 900 + b": " + SECRET + b"\x01", 400, "InvalidHeader: the header NNNNNNNN..."),
    ],
)
def test_the_log_names_the_header_and_not_its_value(plain, line, status, message):
    running, line_with = plain
    assert answer_to(running, HEALTH + line + b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
    (found, *_) = line_with(message)
    assert " WARNING refused: " in found
    assert SECRET.decode() not in found
    assert "127.0.0.1" in found


def test_headers_that_never_end_are_answered(plain):
    running, line_with = plain
    many = b"".join(b"X-%d: %s\r\n" % (number, SECRET * 100) for number in range(200))
    assert answer_to(running, HEALTH + many).startswith(b"HTTP/1.1 431 ")
    assert line_with("its headers do not end")


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)], "it speaks TLS"),
        ([b"\x16", b"\x03\x01\x02\x00"], "it speaks TLS"),
        ([PROXY_1 + HEALTH + b"\r\n"], "the PROXY protocol, version 1"),
        ([b"PRO", PROXY_1[3:]], "the PROXY protocol, version 1"),
        ([PROXY_2], "the PROXY protocol, version 2"),
    ],
)
def test_another_protocol_is_recognised_at_once(keys, tmp_path, pieces, message):
    with logged(keys, tmp_path, STORAGE_READ_TIMEOUT="60") as (running, line_with):
        assert answer_to(running, *pieces).startswith(b"HTTP/1.1 400 ")  # long before the read time-out
        assert line_with(message)


def test_a_tls_client_is_refused_before_its_time_out(plain):
    running, line_with = plain
    parts = urlsplit(running.url)
    context = certificates.trusting()
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=10) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname="127.0.0.1")
    assert line_with("it speaks TLS, and this port does not")


@pytest.mark.parametrize("line", [PROXY_1, PROXY_2])
def test_the_proxy_protocol_in_front_of_tls_is_named(keys, tmp_path, line):
    with logged(keys, tmp_path, **certificates.write(tmp_path)) as (running, line_with):
        answer_to(running, line)
        assert line_with("the PROXY protocol")
        client = Client(running.url, "0" * 8, keys, context=certificates.trusting())
        assert client.call("GET", f"{BASE}/health", headers={}).status == 200
        client.close()


@pytest.mark.parametrize("head", [b"", b"P", b"POST /", b"GET /", b"PROXX ", b"\r\n", b"\x16", b"HEAD / HTTP/1.1\r\n"])
def test_http_and_what_may_become_it_is_not_foreign(head):
    assert foreign(head) is None


def test_a_header_with_an_underscore_is_dropped_and_passes_for_no_other(plain, tenant, keys):
    running, _ = plain
    client = Client(running.url, tenant, keys)
    path = f"{BASE}/states/{tenant}/{tenant}"
    signed = client.headers(path)
    assert client.call("GET", path, headers=signed | {"X_Any_Thing": "1", "Content_Length": "99"}).status == 404
    for name in signed:
        imitated = {name.replace("-", "_"): value for name, value in signed.items()} | {
            other: value for other, value in signed.items() if other != name
        }
        assert client.call("GET", path, headers=imitated).status in (400, 401), name
    both = signed | {"X_ManyWho_Signature": "x.y.z", "X_MANYWHO_PLATFORM_KEY_ID": "nobody"}
    assert client.call("GET", path, headers=both).status == 404
    client.close()


def test_a_larger_header_is_taken_where_it_is_allowed(keys, tmp_path):
    with logged(keys, tmp_path, STORAGE_MAX_HEADER="64KiB") as (running, line_with):
        most = 65536 - len(b"X-Cert: \r\n")
        assert answer_to(running, HEALTH + b"X-Cert: " + b"x" * most + b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        assert answer_to(running, HEALTH + b"X-Cert: " + b"x" * (most + 1) + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")
        assert line_with("STORAGE_MAX_HEADER allows 65536")


def test_the_refusal_has_the_form_of_the_contract(plain):
    running, _ = plain
    body = answer_to(running, PROXY_1).partition(b"\r\n\r\n")[2]
    assert json.loads(body)["statusCode"] == 400


def test_what_a_body_holds_is_no_header(plain):
    running, line_with = plain
    many = b"".join(b"X-Many-%d: 1\r\n" % number for number in range(120))
    body = b'["' + SECRET * 2000 + b'"]'
    head = HEALTH.replace(b"GET", b"POST") + many + b"Content-Length: %d\r\n\r\n" % len(body)
    assert answer_to(running, head + body).startswith(b"HTTP/1.1 431 ")
    (found, *_) = line_with("the first beyond them is X-Many-")
    assert SECRET.decode() not in found
