"""The samples for nginx, HAProxy and Caddy: accepted as they are, and signed traffic through both, with TLS and a path prefix."""

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import uuid
import warnings
from collections import Counter

import pytest

import receiver.conformance.checks  # noqa: F401 - declares them
from receiver.conformance import registry
from receiver.conformance.run import PASS, run
from receiver.conformance.target import Target
from receiver.mock_platform.client import BASE, Answer
from tests.support import certificates
from tests.support.deployed_proxies import KINDS, PREFIX, Behind, Platform, Receiver, a_proxy, port_that_stays
from tests.support.platform_client import assert_problem, loaded
from tests.support.servers import needed
from tests.support.waiting import until

pytestmark = pytest.mark.slow

MOST = 32 << 20  # bytes of a body, STORAGE_MAX_BODY
SECRET = re.compile(r"[\w-]{40,}")  # a part of a signature, a token or a key; no id is that long
# Of the conformance suite what a proxy can spoil; the rest is about what is inside the bodies. With CHAOS, all.
SAMPLE = ("http", "delete", "replay", "signature", "load.shape", "load.unknown", "save.new", "content.5mb")
SAMPLE += tuple(f"framing.{name}" for name in ("length", "chunked", "unread", "two-signatures", "imitated"))
CHAOS = bool(os.environ.get("CHAOS"))


@pytest.fixture(scope="module")
def behind(keys, tmp_path_factory):
    """The receiver behind the proxies of most tests."""
    with Receiver(keys, tmp_path_factory.mktemp("behind")) as found:
        yield found
    assert "Traceback" not in found.log


@pytest.fixture(scope="module", params=KINDS)
def proxy(request, behind):
    needed(request.param)
    with a_proxy(request.param, [behind]) as found:
        yield found
    assert not SECRET.search(found.log), "a part of a token is in the proxy's log"


@pytest.fixture
def platform(proxy, tenant, keys):
    with contextlib.closing(Platform(proxy.url, tenant, keys)) as client:
        yield client


@pytest.fixture(params=KINDS)
def kind(request):
    needed(request.param)
    return request.param


def leaves_prefix_on(kind):
    """Skip what takes the prefix off where the sample does not: a receiver needs it nowhere."""
    if kind == "caddy":
        pytest.skip("Caddy's `uri strip_prefix` would tidy up the path, so its sample leaves the prefix on")


# The sample itself


def switched_on(kind, sample, folder):
    """Return ``sample`` with all that it shows in comments: certificates of clients, TLS to the receivers, no prefix."""
    on = [
        line.replace("    # ", "    ", 1) if re.match(r" +# (ssl|proxy)_", line) else line
        for line in sample.splitlines()
    ]
    text = "\n".join(on).replace("/etc/nginx/tls", str(folder)).replace("/etc/haproxy/tls", str(folder))
    if kind == "caddy":
        text = re.sub(r"\ttls /.*", "\ttls internal", text)
    if kind == "haproxy":
        bind = re.search(r"^    bind .*$", text, re.M)[0]
        shown = re.search(r"# bind :443 ssl crt \S+ (ca-file .*)$", text, re.M)[1]
        (tls,) = re.findall(r"^    # (ssl verify .*)$", text, re.M)
        text = text.replace(bind, f"{bind} {shown}").replace("default-server ", f"default-server {tls} ")
    return text + "\n"


@pytest.mark.parametrize("form", ["as it is", "prefix taken off", "all switched on"])
def test_the_sample_is_accepted_without_a_warning(kind, form, tmp_path):
    sample, write = KINDS[kind]
    if form == "prefix taken off":
        leaves_prefix_on(kind)
    certificates.write(tmp_path)
    pem = (tmp_path / "server.pem").read_bytes()
    for name in ("both.pem", "platform-ca.pem", "receiver-ca.pem"):
        (tmp_path / name).write_bytes(pem + (tmp_path / "server.key").read_bytes() * (name == "both.pem"))
    text = sample(
        tmp_path, port_that_stays(), [Behind(1, 2), Behind(3, 4), Behind(5, 6)], form != "as it is" and kind != "caddy"
    )
    if form == "all switched on":
        text = switched_on(kind, text, tmp_path)
    command = write(tmp_path, text)
    if kind == "caddy":
        command[command.index("run")] = "validate"
    command += {"nginx": ["-t"], "haproxy": ["-c"], "caddy": []}[kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if "no OCSP stapling for" not in line]
    assert not re.search("warn", "\n".join(said), re.I), said


# What has to get through


def test_states_make_the_round_trip(platform, state):
    assert platform.health().status == 200
    assert platform.save(state).status == 204
    assert loaded(platform, state["id"]) == state["content"]
    assert platform.delete([state["id"]]).status == 204
    assert_problem(platform.load(state["id"]), 404, "no such state")
    assert platform.connection.sock is not None, "the connection was kept all the time"


@pytest.mark.parametrize("takes_prefix_off", [False, True], ids=["with its prefix", "prefix taken off"])
def test_the_contract_holds_through_the_proxy(kind, takes_prefix_off, behind, keys):
    if takes_prefix_off:
        leaves_prefix_on(kind)
    with a_proxy(kind, [behind], takes_prefix_off) as proxy:
        target = Target(proxy.url, keys, str(uuid.uuid4()), tls=certificates.trusting())
        checks = registry.chosen("all", () if CHAOS else SAMPLE)
        report = run(target, checks, "all", lambda *_: None)
    wrong = [(one.check.id, one.expected, one.came) for one in report.results if one.verdict != PASS]
    assert wrong == []
    print(f"{len(report.results)} checks with {report.requests()} requests through {kind}")


@pytest.mark.case("B11")
def test_a_body_just_below_the_limit_and_a_reply_of_megabytes_get_through(platform, state):
    state["content"] = json.dumps({"page": os.urandom(9_200_000).hex()})
    bodies = []
    platform.post = lambda body: bodies.append(json.dumps(body).encode())
    platform.save(state, compressed=False)
    (body,) = bodies
    assert 30 << 20 < len(body) <= MOST
    assert platform.call("POST", f"{BASE}/states/{platform.tenant}", body).status == 204
    answer = platform.load(state["id"])
    assert len(answer.body) > 9_000_000
    assert platform.open(state["id"], answer) == state["content"]
    print(f"{len(body):,} bytes in, {len(answer.body):,} bytes out")


def sent_until_refused(platform, size) -> Answer:
    """Send a signed body of ``size`` bytes until the other side has had enough; return what it answers."""
    path, connection = f"{BASE}/states/{platform.tenant}", platform.connection
    connection.putrequest("POST", PREFIX + path)
    sized = {"Content-Type": "application/json", "Content-Length": str(size)}
    for name, value in (platform.headers(path) | sized).items():
        connection.putheader(name, value)
    connection.endheaders()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        for start in range(0, size, 1 << 16):
            connection.send(b" " * min(1 << 16, size - start))
    response = connection.getresponse()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read(), 0.0)


@pytest.mark.case("E05")
@pytest.mark.parametrize("size", [MOST + 1, 40 << 20], ids=["refused by the receiver", "refused by the proxy"])
def test_a_body_over_the_limit_is_refused_as_the_contract_says(platform, size):
    assert_problem(sent_until_refused(platform, size), 413, "larger than this store accepts")
    platform.close()
    assert platform.health().status == 200


@pytest.mark.case("C13")
@pytest.mark.parametrize("framing", ["with its length", "in chunks"])
def test_the_body_of_a_delete_gets_through(platform, state, framing):
    assert platform.save(state).status == 204
    path, body = f"{BASE}/states/{platform.tenant}", json.dumps([state["id"]]).encode()
    if framing == "with its length":
        assert platform.call("DELETE", path, body).status == 204
    else:
        chunks = (body[:5], body[5:])
        headers = platform.headers(path) | {"Content-Type": "application/json"}
        platform.connection.request("DELETE", PREFIX + path, iter(chunks), headers, encode_chunked=True)
        response = platform.connection.getresponse()
        assert (response.status, response.read()) == (204, b"")
    assert platform.load(state["id"]).status == 404


def test_a_signature_of_eight_kilobytes_gets_through(platform):
    path = f"{BASE}/states/{platform.tenant}/{uuid.uuid4()}"
    long = platform.headers(path, more="x" * 5500)
    assert 7800 < len(long["X-ManyWho-Signature"]) < 8190
    assert_problem(platform.call("GET", path, headers=long), 404, "no such state")


def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on(platform, state, proxy):
    assert platform.save(state).status == 204
    path, body = f"{BASE}/states/{platform.tenant}", json.dumps([state["id"]]).encode()
    lines = [f"DELETE {PREFIX}{path} HTTP/1.1", "Host: flow.example.com", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", "Expect: 100-continue"]
    lines += [f"{name}: {value}" for name, value in platform.headers(path).items()]
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain,
        certificates.trusting().wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall("\r\n".join([*lines, "", ""]).encode())
        assert secured.recv(4096).startswith(b"HTTP/1.1 100 ")
        secured.sendall(body)
        while (came := secured.recv(4096)).startswith(b"HTTP/1.1 100 "):
            pass  # Caddy passes on the receiver's, too
        assert came.startswith(b"HTTP/1.1 204 ")
    assert platform.load(state["id"]).status == 404


def test_the_certificate_of_caddys_own_authority_is_enough_to_try_it(behind, keys, tenant, state, monkeypatch):
    """`tls internal` in the place of a public certificate: the same traffic, trusted by Caddy's root certificate."""
    needed("caddy")
    sample, write = KINDS["caddy"]

    def internal(*given):
        text = re.sub(r"\ttls /.*", "\ttls internal", sample(*given))
        return text.replace("https://:", "https://127.0.0.1:")

    monkeypatch.setitem(KINDS, "caddy", (internal, write))
    with a_proxy("caddy", [behind]) as proxy, contextlib.closing(Platform(proxy.url, tenant, keys)) as client:
        root = proxy.folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        until(root.exists)
        client.connection._context = ssl.create_default_context(cafile=str(root))
        until(lambda: not isinstance(answered(client.health), ssl.SSLError))  # it makes its certificates first
        assert client.save(state).status == 204
        assert loaded(client, state["id"]) == state["content"]
    with pytest.raises(ssl.SSLError), a_proxy("caddy", [behind]) as proxy:
        Platform(proxy.url, tenant, keys).health()


def answered(call):
    """Return what ``call`` returns, or raises because of TLS."""
    try:
        return call()
    except ssl.SSLError as failure:
        return failure


# What must not


def other_spellings(tenant):
    """Return paths that some reading takes for that of the ``tenant``'s states."""
    states = f"{PREFIX}{BASE}/states"
    return [
        f"{states}/%{ord(tenant[0]):x}{tenant[1:]}",
        f"{states}/{tenant.replace('-', '%2D', 1)}",
        f"{states}/{tenant.replace('-', '%2d', 1)}",
        f"{PREFIX}/%61pi/storage/1/states/{tenant}",
        f"/%66low{BASE}/states/{tenant}",
        f"{PREFIX}{BASE}//states/{tenant}",
        f"{PREFIX}{BASE}/./states/{tenant}",
        f"{PREFIX}{BASE}/health/../states/{tenant}",
        f"{PREFIX}{BASE}/health/%2e%2e/states/{tenant}",
        f"{PREFIX}{BASE}/health%2f..%2fstates/{tenant}",
        f"/x/..{PREFIX}{BASE}/states/{tenant}",
        f"/{PREFIX}{BASE}/states/{tenant}",
        f"{PREFIX}{PREFIX}{BASE}/states/{tenant}",
        f"{BASE}/states/{tenant}",
        f"{PREFIX.upper()}{BASE}/states/{tenant}",
        f"{states}/{tenant}/",
        f"{states}/{tenant};x",
        f"{states}/{tenant}%3Fx",
        f"{states}\\{tenant}",
    ]


@pytest.mark.case("A17")
def test_only_the_path_that_was_signed_is_called_however_it_is_spelled(platform, state):
    """A signature of the plain path opens no other spelling of it, and that of a spelling is good for it alone."""
    plain, body = f"{PREFIX}{BASE}/states/{platform.tenant}", json.dumps([state["id"]]).encode()

    def called(path, signed):
        headers = platform.headers("", path=signed) | {"Content-Type": "application/json"}
        platform.connection.request("DELETE", path, body, headers)
        response = platform.connection.getresponse()
        response.read()
        return response.status

    let_through = []
    assert platform.save(state).status == 204
    for path in other_spellings(platform.tenant):
        assert called(path, plain) in (400, 401, 404), path
        assert called(plain, path) == 401
        assert loaded(platform, state["id"]) == state["content"], path
        if called(path, path) == 204:
            let_through.append(path)
            assert platform.load(state["id"]).status == 404
            assert platform.save(state).status == 204
    # These came through as they were sent: a decoded one would not have been what was signed.
    assert let_through == other_spellings(platform.tenant)[:3]
    assert called(f"{plain}?x=1", plain) == 204  # a query is no part of the path


@pytest.mark.parametrize("name", ["metrics", "readyz", "livez"])
def test_the_admin_listener_cannot_be_reached(platform, name):
    base = f"{PREFIX}{BASE}"
    for path in (
        f"/{name}",
        f"{PREFIX}/{name}",
        f"{base}/{name}",
        f"{base}/../../../{name}",
        f"{base}/../../../../{name}",
    ):
        platform.connection.request("GET", path)
        response = platform.connection.getresponse()
        content = response.read()
        assert response.status in (400, 404), path
        assert json.loads(content)["statusCode"] == response.status


def test_a_client_cannot_say_that_it_is_another_one(kind, keys, tenant, tmp_path):
    with (
        Receiver(keys, tmp_path / "receiver", STORAGE_ALLOW_FROM="127.0.0.9") as listed,
        a_proxy(kind, [listed]) as proxy,
    ):
        for source, claims, status in (
            ("127.0.0.9", (), 204),
            ("127.0.0.9", ("127.0.0.8",), 204),
            ("127.0.0.8", (), 403),
            ("127.0.0.8", ("127.0.0.9",), 403),
            ("127.0.0.8", ("127.0.0.9, 127.0.0.1",), 403),
            ("127.0.0.8", ("127.0.0.9", "127.0.0.9"), 403),
        ):
            with contextlib.closing(Platform(proxy.url, tenant, keys)) as client:
                client.connection.source_address = (source, 0)
                client.connection.putrequest("DELETE", f"{PREFIX}{BASE}/states/{tenant}")
                headers = client.headers(f"{BASE}/states/{tenant}")
                headers |= {"Content-Type": "application/json", "Content-Length": "2", "X-Real-IP": "127.0.0.9"}
                for name, value in [*headers.items(), *(("X-Forwarded-For", one) for one in claims)]:
                    client.connection.putheader(name, value)
                client.connection.endheaders(b"[]")
                response = client.connection.getresponse()
                response.read()
                assert response.status == status, (source, claims)
        lines = [line for line in listed.log.splitlines() if " DELETE " in line]
    assert [re.search(r"127\.0\.0\.\d", line)[0] for line in lines] == ["127.0.0.9"] * 2 + ["127.0.0.8"] * 4


def test_the_proxy_names_the_request_in_its_log_and_in_that_of_the_receiver(platform, proxy, behind):
    answer = platform.call("GET", f"{BASE}/states/{platform.tenant}/{uuid.uuid4()}")
    forged = platform.headers(f"{BASE}/health") | {"X-Request-ID": "forged-by-the-client"}
    other = platform.call("GET", f"{BASE}/health", headers=forged)
    named = {answer.headers["x-request-id"], other.headers["x-request-id"]}
    assert len(named) == 2
    for logger in (proxy, behind):
        # a line is written when the reply is on its way
        until(
            lambda logger=logger: all(one in logger.log for one in named),
            message=lambda logger=logger: logger.log,
        )
        assert "forged-by-the-client" not in logger.log
    assert f"{BASE}/health" in proxy.log
    assert not SECRET.search(proxy.log)


# What the proxy says and does by itself


def test_the_proxys_own_errors_are_the_contracts(kind, keys, tenant):
    with (
        a_proxy(kind, [Behind(port_that_stays(), port_that_stays())]) as proxy,
        contextlib.closing(Platform(proxy.url, tenant, keys)) as client,
    ):
        answer = client.load(str(uuid.uuid4()))
        assert_problem(answer, 503, "send the same request again")
        assert answer.headers["retry-after"] == "2"
        assert answer.json["uri"].startswith(f"{PREFIX}{BASE}/states/{tenant}/")
        client.prefix = ""
        assert_problem(client.health(), 404, "nothing at this address")
        client.connection.request("GET", '/flow"\\', headers={})
        response = client.connection.getresponse()
        assert json.loads(response.read())["statusCode"] == response.status


@contextlib.contextmanager
def failing(reply: bytes):
    """A server that reads each request and answers it with ``reply``, or not at all; yields its port and their count."""
    counts = Counter()

    def serve(connection):
        with connection, connection.makefile("rb") as sent:
            size = 0
            while (line := sent.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            if line:
                counts["requests"] += len(sent.read(size)) == size
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listener.getsockname()[1], counts
        finally:
            listener.shutdown(socket.SHUT_RDWR)


BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("reply", [b"", BUSY, None], ids=["says nothing", "says 503", "takes no connection"])
def test_what_one_receiver_cannot_answer_is_sent_to_another(kind, reply, behind, keys, tenant, state):
    """Saves and deletes too. nginx has them whole, of any size; HAProxy as long as they fit into its buffer."""
    if kind == "caddy":
        pytest.skip("Caddy 2.6 cannot send a body twice; the platform sends the request again")
    size = {"nginx": 400_000, "haproxy": 8_000}[kind]
    with (
        failing(reply or b"") as (port, counts),
        a_proxy(kind, [Behind(port_that_stays() if reply is None else port, behind.admin), behind]) as proxy,
        contextlib.closing(Platform(proxy.url, tenant, keys)) as client,
    ):
        for number in range(6):
            state["content"] = json.dumps({"page": os.urandom(size).hex(), "number": number})
            assert client.save(state).status == 204
            assert loaded(client, state["id"]) == state["content"]
            assert client.delete([state["id"]]).status == 204
    assert (counts["requests"] > 0) == (reply is not None)
    print(f"{counts['requests']} requests were sent again by {kind}")


def test_caddy_leaves_a_receiver_alone_that_takes_no_connection(behind, keys, tenant, state):
    """Loads go to another one at once; of what has a body the first fails, and the platform may send it again."""
    needed("caddy")
    dead = Behind(port_that_stays(), behind.admin)
    with (
        a_proxy("caddy", [dead, behind]) as proxy,
        contextlib.closing(Platform(proxy.url, tenant, keys)) as client,
    ):
        assert [client.load(str(uuid.uuid4())).status for _ in range(8)] == [404] * 8
    with (
        a_proxy("caddy", [dead, behind]) as proxy,
        contextlib.closing(Platform(proxy.url, tenant, keys)) as client,
    ):
        answers = [client.save(state) for _ in range(12)]
    statuses = [answer.status for answer in answers]
    assert statuses.count(204) >= 11
    for answer in answers:
        if answer.status != 204:
            assert_problem(answer, 502, "send the same request again")
            assert answer.headers["retry-after"] == "2"


def test_old_tls_and_weak_ciphers_are_refused(proxy):
    def agreed(**options):
        context = certificates.trusting()
        context.set_ciphers(options.pop("ciphers", "ALL:@SECLEVEL=0"))
        for name, value in options.items():
            setattr(context, name, value)
        with (
            socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as made,
        ):
            return made.version(), made.cipher()[0]

    assert agreed()[0] == "TLSv1.3"
    version, cipher = agreed(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert version == "TLSv1.2"
    assert cipher.startswith("ECDHE-")
    assert "GCM" in cipher or "POLY1305" in cipher
    old = ssl.TLSVersion.TLSv1_1
    with warnings.catch_warnings(), pytest.raises(ssl.SSLError):
        warnings.simplefilter("ignore")  # that it is old
        agreed(minimum_version=old, maximum_version=old)
    with pytest.raises(ssl.SSLError):
        agreed(maximum_version=ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA:ECDHE-RSA-AES128-SHA:@SECLEVEL=0")
