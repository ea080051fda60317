"""The simulated platform over HTTP, its command line and its page."""

import contextlib
import datetime
import ipaddress
import json
import os
import re
import socket
import ssl
import struct
import threading
import uuid
import zlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.commands.platform import STORE, TENANT
from receiver.mock_platform import keyfiles, web
from receiver.mock_platform.calls import CALLS, Simulator
from receiver.mock_platform.keys import KeyPair, StoreKeys
from receiver.mock_platform.platform import Platform
from tests.support.browsers import chromium
from tests.support.commands import receiver as run_receiver
from tests.support.servers import needed
from tests.support.simulators import a_receiver, a_simulator
from tests.support.waiting import until

pytestmark = pytest.mark.slow

RUN = {"flow": "Claim", "country": "DE"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def receiver(folder):
    with a_receiver(folder) as running:
        yield running


@pytest.fixture(scope="module")
def simulator(receiver):
    with a_simulator(receiver) as running:
        yield running


@pytest.fixture(scope="module")
def browserless(tmp_path_factory):
    """A client of the application in this process, for whatever strange is sent; its stores answer nothing."""
    platform = Platform(patience=0)
    platform.register("local", "http://127.0.0.1:1", id=STORE)
    platform.add_tenant(TENANT, "Demo")
    app = web.create_app(Simulator(platform, tmp_path_factory.mktemp("keys")))
    return app.test_client()


def test_it_starts_wired_to_the_receiver(simulator, receiver):
    stores, tenant = simulator.call("/api/admin/1/stores").json, simulator.call("/api/admin/1/tenant").json
    assert (stores[0]["id"], stores[0]["endpoint"]) == (STORE, receiver.url)
    assert (tenant["id"], tenant["mode"]) == (TENANT, "external only")
    assert simulator.call("/api/admin/1/stores/local").json["isWell"] is True
    started = simulator.call("/api/run/1/state", RUN)
    assert (started.status, started.json["keptBy"]) == (201, ["local"])


def test_the_answer_to_a_new_store_configures_its_receiver(simulator, tmp_path):
    headers = {"ManyWhoTenant": str(uuid.uuid4())}
    with a_receiver(tmp_path) as other:
        body = {"name": "second", "endpoint": other.url, "location": "FR"}
        answer = simulator.call("/api/admin/1/stores", body)
        assert answer.status == 201
        assert "d" not in answer.json["platformKey"]
        assert "d" in answer.json["receiverKey"]
        storage = {"enableStates": True, "globalStoreId": answer.json["id"]}
        changed = simulator.call("/api/admin/1/tenant", {"externalStorageSettings": storage}, **headers)
        assert changed.json["externalStorageSettings"]["globalStoreId"] == answer.json["id"]
        refused = simulator.call("/api/run/1/state", RUN, **headers)
        assert (refused.status, refused.json["message"][:28]) == (502, "the store second answered 40")
        other.keys = StoreKeys(KeyPair.of(answer.json["platformKey"]), KeyPair.of(answer.json["receiverKey"]))
        other.restart()
        assert simulator.call("/api/run/1/state", RUN, **headers).json["keptBy"] == ["second"]
    assert simulator.call("/api/admin/1/stores", body).status == 409


def test_a_store_may_have_keys_already(simulator, receiver):
    headers = {"ManyWhoTenant": str(uuid.uuid4())}
    keys = {"platformKey": receiver.keys.platform.private(), "receiverKey": receiver.keys.receiver.public()}
    answer = simulator.call("/api/admin/1/stores", {"name": "given", "endpoint": receiver.url} | keys)
    assert answer.status == 201
    assert not {"platformKey", "receiverKey"} & set(answer.json)
    storage = {"enableStates": True, "globalStoreId": "given"}
    assert simulator.call("/api/admin/1/tenant", {"externalStorageSettings": storage}, **headers).status == 200
    assert simulator.call("/api/run/1/state", RUN, **headers).json["keptBy"] == ["given"]
    for wrong in (
        {"platformKey": receiver.keys.platform.public(), "receiverKey": keys["receiverKey"]},
        {"platformKey": keys["platformKey"]},
        {"platformKey": {"kty": "oct", "k": "AAAA"}, "receiverKey": {}},
    ):
        refused = simulator.call("/api/admin/1/stores", {"name": "wrong", "endpoint": receiver.url} | wrong)
        assert refused.status == 400
        assert "Key" in refused.json["message"]


def test_after_a_rotation_the_old_keys_can_go(tmp_path):
    with a_receiver(tmp_path) as rotating, a_simulator(rotating) as simulator:
        run = simulator.call("/api/run/1/state", RUN).json["stateId"]
        made = simulator.call("/api/admin/1/stores/local/keys", {"export": True}).json
        assert len(made["files"]) == 3
        old, rotating.keys = rotating.keys, keyfiles.read(tmp_path / "keys")
        rotating.restart()
        assert simulator.call("/api/admin/1/stores/local/keys/use", {}).status == 200
        assert simulator.call("/api/admin/1/stores/local/keys/retire", {}).status == 200
        for path in (tmp_path / "keys").iterdir():
            if old.platform.kid in path.name or old.receiver.kid in path.name:
                path.unlink()
        rotating.restart()
        assert simulator.call(f"/api/run/1/state/{run}", {"action": "step", "country": "DE"}).status == 200


def test_only_the_answers_that_are_for_a_receiver_hold_keys(simulator, receiver):
    made = simulator.call("/api/admin/1/stores/local/keys", {}).json
    simulator.call("/api/run/1/state", RUN)
    shown = "".join(
        simulator.call(path).text
        for path in (
            *("/", "/api/admin/1/stores", "/api/admin/1/stores/local", "/api/admin/1/tenant"),
            "/api/simulator/1/overview",
        )
    )
    assert receiver.keys.platform.kid in shown
    for members in (made["receiverKey"], receiver.keys.platform.private(), receiver.keys.receiver.private()):
        assert not [name for name in "xyd" if members[name] in shown]
    assert not re.search(r"eyJ[\w-]+\.", shown)  # no token
    assert "stateEntries" not in shown


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/api/run/1/state", {"flow": "Claim"}, 400, "country: Missing data"),
        ("/api/run/1/state", RUN | {"country": "de"}, 400, "country: must be a country's two capital letters"),
        ("/api/run/1/state", RUN | {"flow": "Nothing"}, 404, "it has Claim, Onboarding, Survey"),
        ("/api/run/1/state", RUN | {"runs": 1001}, 400, "runs: "),
        ("/api/run/1/state", b"{", 400, "not JSON"),
        ("/api/run/1/state", b"[" * 200_000, 400, "not JSON"),
        ("/api/run/1/state", b'{"flow": ' + b"9" * 10_000 + b"}", 400, "not JSON"),
        ("/api/run/1/state", b"x" * (2 << 20), 413, "exceeds"),
        ("/api/run/1/state/x", {"action": "step", "country": "DE"}, 404, "not a UUID"),
        (f"/api/run/1/state/{uuid.UUID(int=1)}", {"action": "step", "country": "DE"}, 404, "no such state"),
        (f"/api/run/1/state/{uuid.UUID(int=1)}", {"action": "_keep", "country": "DE"}, 400, "must be one of step"),
        ("/api/admin/1/stores", {"name": "x", "endpoint": "file:///etc/passwd"}, 400, "endpoint must be a URL"),
        ("/api/admin/1/stores", {"name": "\ud800", "endpoint": "http://a"}, 400, "name: 1 to 80 letters"),
        ("/api/admin/1/stores/none/keys", {}, 404, "no such store"),
        ("/api/admin/1/stores/local/keys/use", {}, 409, "there are no new keys"),
        ("/api/admin/1/tenant", {"externalStorageSettings": {"enableStates": True}}, 400, "needs globalStoreId"),
        ("/api/admin/1/tenant", {"flows": {"No": {"restrictions": {}}}}, 404, "no such flow"),
        ("/api/admin/1/tenant", {"restrictions": {"regions": ["XX"]}}, 400, "restrictions.regions.0: must be one of"),
        ("/api/admin/1/local/migrate", {"batchSize": 0}, 400, "batchSize: "),
        ("/api/simulator/1/crowd", {"users": 33}, 400, "users: "),
        ("/nothing", {}, 404, "not found"),
    ],
)
def test_a_mistake_is_answered_with_its_reason(browserless, path, body, status, told):
    data = body if isinstance(body, bytes) else json.dumps(body)
    answer = browserless.post(path, data=data, content_type="application/json")
    assert answer.status_code == status
    assert told in answer.json["message"]


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([STORE, "DE", "GB"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def _calls(draw):
    """A call of the simulator with a body in which some fields are right and others are anything."""
    call = draw(st.sampled_from(CALLS))
    good = {"name": "n", "endpoint": "http://127.0.0.1:1", "flow": "Claim", "country": "GB", "action": "step"}
    good |= {"seconds": 1, "users": 1, "export": False, "batchSize": 5, "enableStates": False}
    fields = list(call.body._declared_fields) if call.body else []
    body = {name: draw(_ANYTHING) if draw(st.booleans()) else good.get(name) for name in fields}
    body = {name: value for name, value in body.items() if value is not None or draw(st.booleans())}
    path = re.sub("<name>", draw(st.sampled_from(["local", STORE, "%00", "..", "ä", "'"])), call.rule)
    path = re.sub("<id>", draw(st.sampled_from([str(uuid.UUID(int=5)), "x", "%ff", "0" * 32])), path)
    tenant = draw(st.sampled_from([None, TENANT, "x", "\xff", str(uuid.UUID(int=9))]))
    return call.method, path, draw(st.sampled_from([body, draw(_ANYTHING)])), tenant


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=_calls())
def test_no_input_makes_a_500(browserless, call):
    method, path, body, tenant = call
    if path.endswith("/crowd") and method == "POST":
        body = [body]  # a crowd of each would be here for long
    headers = {"ManyWhoTenant": tenant} if tenant else {}
    answer = browserless.open(
        path + "?after=%27", method=method, data=json.dumps(body), content_type="application/json", headers=headers
    )
    assert answer.status_code in (200, 201, 202, 204, 400, 403, 404, 405, 409, 502, 507), answer.text
    assert answer.status_code == 204 or answer.is_json


def test_another_origin_can_make_a_browser_do_nothing_here(browserless):
    body = json.dumps({"enableStates": False})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert browserless.post("/api/admin/1/tenant", data=body, content_type=kind).status_code == 415
    for host in ("evil.example", "evil.example:8090", "127.0.0.1.evil.example", ""):
        assert browserless.get("/api/admin/1/stores", headers={"Host": host}).status_code in (400, 421)
    for host in ("localhost:8090", "127.0.0.1:8090", "[::1]:8090", "192.0.2.7"):
        answer = browserless.get("/api/admin/1/stores", headers={"Host": host})
        assert answer.status_code == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_page_needs_nothing_from_elsewhere_and_may_run_nothing_else(browserless):
    answer = browserless.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"http-equiv|// .*", "", answer.text))
    assert not re.search(r"innerHTML|document\.write|eval\(| style=| onclick=", answer.text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "keys/mock-platform-*.json: there is no such file"),
        (["--bind", "nowhere"], "must be HOST:PORT"),
        (["--receiver", "ftp://x"], "endpoint must be a URL"),
        (["--ca", "/dev/null"], "--ca"),
        (["--lose", "2"], "--lose"),
    ],
)
def test_a_start_that_cannot_work_says_why(tmp_path, words, told):
    if words:
        assert run_receiver("keys", "generate", cwd=tmp_path).returncode == 0
    ran = run_receiver("platform", "serve", *words, cwd=tmp_path)
    assert ran.returncode in (1, 2)
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_port_in_use_is_told(simulator, folder):
    ran = run_receiver("platform", "serve", "--bind", simulator.url.removeprefix("http://"), cwd=folder)
    assert ran.returncode == 1
    assert "in use" in ran.stderr


def a_certificate(folder):
    """Write a certificate for 127.0.0.1 and its key; returns both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    kind = (pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(*kind))
    return folder / "ca.pem", folder / "key.pem"


@contextlib.contextmanager
def tls_before(port, certificate, key):
    """Yield the port of a TLS server that passes everything on to ``port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def pass_on(plain):
        try:
            here = context.wrap_socket(plain, server_side=True)
        except OSError:
            plain.close()
            return
        with here, socket.create_connection(("127.0.0.1", port)) as there:
            back = threading.Thread(target=copy, args=(there, here), daemon=True)
            back.start()
            copy(here, there)
            back.join()

    def serve():
        while True:
            try:
                plain, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=pass_on, args=(plain,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def test_a_receiver_behind_tls_is_believed_with_its_ca_only(receiver, tmp_path):
    certificate, key = a_certificate(tmp_path)
    with tls_before(receiver.port, certificate, key) as port:
        options = {"url": f"https://127.0.0.1:{port}"}
        with a_simulator(receiver, "--ca", str(certificate), **options) as simulator:
            assert simulator.call("/api/run/1/state", RUN).json["keptBy"] == ["local"]
        with a_simulator(receiver, "--patience", "0", **options) as simulator:
            answer = simulator.call("/api/run/1/state", RUN)
            assert answer.status == 502
            assert "SSLCertVerificationError" in answer.json["message"]


@pytest.fixture(scope="module")
def busy(simulator):
    """A simulator in which something has happened."""
    assert simulator.call("/api/admin/1/tenant", {"restrictions": {"regions": ["EU", "SG"]}}).status == 200
    for country in ("DE", "SG", "DE"):
        run = simulator.call("/api/run/1/state", RUN | {"country": country}).json["stateId"]
    simulator.call(f"/api/run/1/state/{run}", {"action": "vote", "country": "DE"})
    yield simulator, run
    assert simulator.call("/api/admin/1/tenant", {"restrictions": {}}).status == 200


def test_the_page_shows_regions_stores_runs_and_the_traffic(busy, tmp_path):
    needed("chromium")
    simulator, run = busy
    shown = chromium(tmp_path, f"{simulator.url}/", "--dump-dom")
    traffic = re.search(r'<tbody id="traffic">(.*?)</tbody>', shown, re.S).group(1)
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in re.findall(r"<tr>(.*?)</tr>", traffic)]
    newest = [row for row in rows if row[-1] == run[:8]]
    assert [(row[2], row[3]) for row in newest] == [("save", "204"), ("load", "200"), ("save", "204")]
    assert len(re.findall(r'<li class="closed">', shown)) == 4
    assert "eu.flow-prod.boomi.com" in shown
    assert "regions EU, SG; countries all" in shown
    assert "external only" in shown
    assert re.search(rf'aria-label="step in run {run[:8]}"', shown)
    assert "refused" not in re.search(r'id="message".*?</p>', shown).group()


def shown_of(page, id):
    """Return the text of the element ``id``, None where it is hidden."""
    found = re.search(rf'<p id="{id}"([^>]*)>(.*?)</p>', page, re.S)
    return None if "hidden" in found[1] else re.sub(r"<[^>]+>", "", found[2])


def test_the_page_tells_the_verdict_of_a_crowd_that_ended_by_itself(receiver, tmp_path):
    needed("chromium")
    with a_simulator(receiver) as simulator:
        assert shown_of(chromium(tmp_path, f"{simulator.url}/", "--dump-dom"), "verdict") is None
        assert simulator.call("/api/simulator/1/crowd", {"users": 2, "seconds": 1}).status == 202
        until(lambda: simulator.call("/api/simulator/1/crowd").json["verdict"] != "running")
        told = shown_of(chromium(tmp_path, f"{simulator.url}/", "--dump-dom"), "verdict")
        assert re.fullmatch(r"The crowd has finished: 2 users, \d+ runs?, [\d,]+ saves?, 0 refused; no save lost", told)


def test_the_page_tells_within_two_seconds_that_no_receiver_is_there_and_how_to_start_one(tmp_path):
    needed("chromium")
    with a_receiver(tmp_path) as receiver, a_simulator(receiver) as simulator:
        flags = ("--dump-dom", "--virtual-time-budget=1500")
        assert shown_of(chromium(tmp_path, f"{simulator.url}/", *flags), "down") is None
        receiver.process.terminate()
        receiver.process.wait(30)
        until(lambda: simulator.call("/api/simulator/1/overview").json["stores"][0]["answers"] is False, 2)
        told = shown_of(chromium(tmp_path, f"{simulator.url}/", *flags), "down")
        assert told == f"No receiver answers at {receiver.url}. To start one here: make run"
        picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / "platform-down.png"
        chromium(tmp_path, f"{simulator.url}/", "--window-size=1000,900", f"--screenshot={picture}")
        assert corner_of(picture.read_bytes())[:2] == (1000, 900)


@pytest.mark.parametrize(("scheme", "ground"), [("light", (246, 247, 249)), ("dark", (18, 23, 30))])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_drawn_narrow_and_wide_light_and_dark(busy, tmp_path, scheme, ground, width):
    needed("chromium")
    picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"platform-{scheme}-{width}.png"
    flags = (f"--window-size={width},1500", f"--screenshot={picture}")
    chromium(tmp_path, f"{busy[0].url}/", *flags, dark=scheme == "dark")
    assert corner_of(picture.read_bytes()) == (width, 1500, *ground)


@pytest.mark.parametrize("width", [500, 1400])  # a headless window is never narrower than 500
def test_nothing_of_the_page_sticks_out_sideways(busy, tmp_path, width):
    needed("chromium")
    shown = chromium(tmp_path, f"{busy[0].url}/", "--dump-dom", f"--window-size={width},1500")
    measured = re.sub(r"<script>.*?</script>", "", shown, flags=re.S)
    measured += "<script>document.title = [innerWidth, document.documentElement.scrollWidth]</script>"
    (tmp_path / "page.html").write_text(measured)
    again = chromium(tmp_path, f"file://{tmp_path}/page.html", "--dump-dom", f"--window-size={width},1500")
    window, content = map(int, re.search(r"<title>(\d+),(\d+)</title>", again).groups())
    assert content <= window <= width


def corner_of(png):
    """Return width, height, and red, green and blue of the first pixel of ``png`` (its filter changes nothing there)."""
    width, height = struct.unpack(">II", png[16:24])
    packed, at = b"", 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        packed += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return width, height, *zlib.decompressobj().decompress(packed, 4)[1:4]
