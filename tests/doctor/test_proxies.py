"""The doctor through a proxy: what the proxy takes away is named."""

import contextlib
import http.client
import http.server
import threading
from urllib.parse import urlsplit

import pytest

from tests.support.doctoring import doctor, left_in_the_store, serving

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def proxy(url, change):
    """Answer for the receiver at ``url``; ``change`` gets each request (method, path, headers, body) and alters it.

    It returns an answer (status, body) of the proxy's own instead, if it likes. Yields the proxy's URL.
    """
    behind = urlsplit(url)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16

        def forward(self):
            asked = {"method": self.command, "path": self.path, "headers": dict(self.headers)}
            asked["body"] = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            own = change(asked)
            if own:
                self.answer(own[0], {"Content-Type": "text/html"}, own[1])
                return
            with contextlib.closing(http.client.HTTPConnection(behind.hostname, behind.port, timeout=30)) as connection:
                connection.request(asked["method"], asked["path"], asked["body"], asked["headers"])
                answer = connection.getresponse()
                content = answer.read()
            kept = {
                name: value
                for name, value in answer.getheaders()
                if name.lower() not in ("connection", "content-length", "server")
            }
            self.answer(answer.status, kept | asked.get("answer", {}), content)

        def answer(self, status, headers, content):
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = forward

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def strips(prefix):
    return lambda asked: asked.update(path=asked["path"].removeprefix(prefix))


def without_body_of_delete(asked):
    if asked["method"] == "DELETE":
        asked["body"] = None
        asked["headers"].pop("Content-Length", None)


def without_signature(asked):
    asked["headers"].pop("X-ManyWho-Signature", None)


def without_key_ids(asked):
    asked["headers"].pop("X-ManyWho-Receiver-Key-ID", None)


def small_bodies(asked):
    return (413, b"<h1>too large</h1>") if len(asked["body"] or b"") > 1 << 20 else None


def no_delete(asked):
    return (405, b"<h1>no</h1>") if asked["method"] == "DELETE" else None


def health_alone(asked):
    return None if asked["path"].endswith("/health") else (404, b"<h1>nothing here</h1>")


def an_old_clock(asked):
    asked["answer"] = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}


def another_path(asked):
    asked["path"] = asked["path"].replace("/states/", "/states//")


PROXIES = [
    (lambda asked: None, "", ("proxy", "ok", "the path unchanged")),
    (strips("/flow"), "/flow", ("proxy", "fail", "removes /flow from the path", "STORAGE_PUBLIC_PREFIX=/flow")),
    (lambda asked: None, "/flow", ("proxy", "fail", "passes the prefix /flow on", "STORAGE_PUBLIC_PREFIX=/flow")),
    (another_path, "", ("proxy", "fail", "path changes on the way", "pass the path on unchanged")),
    (health_alone, "", ("proxy", "fail", "while health reaches a receiver", "not health alone")),
    (an_old_clock, "", ("clock", "fail", "more than STORAGE_CLOCK_SKEW", "timedatectl")),
    (lambda asked: (502, b"bad gateway"), "", ("proxy", "fail", "502", "STORAGE_BIND")),
    (lambda asked: (200, b"hello"), "", ("proxy", "fail", "not by a receiver", "under /api/storage/1")),
    (without_body_of_delete, "", ("roundtrip", "fail", "delete is answered with 400", "body of DELETE")),
    (small_bodies, "", ("roundtrip", "fail", "413", "client_max_body_size")),
    (no_delete, "", ("roundtrip", "fail", "405", "pass GET, POST and DELETE on")),
    (without_key_ids, "", ("roundtrip", "fail", "400", "X-ManyWho-")),
]


@pytest.mark.parametrize(("change", "path", "expected"), PROXIES, ids=[" ".join(one[2][2:3]) for one in PROXIES])
def test_a_proxy_in_front(running, change, path, expected):
    with proxy(running.url, change) as url:
        report = doctor("--roundtrip", "--url", url + path, **running.environ)
        report.one(*expected)
        assert report.code == (0 if expected[1] == "ok" else 1)
        if expected[1] == "ok":
            assert "save of " in report.one("roundtrip", "ok", f"through {url}").details[0]
        if path and "takes" in expected[2]:  # all else is tried in spite of it
            report.one("roundtrip", "ok")
    assert left_in_the_store(running) == []


def test_a_signature_that_gets_lost_on_the_way(running):
    with proxy(running.url, without_signature) as url:
        report = doctor("--roundtrip", "--url", url, **running.environ)
        report.one("roundtrip", "fail", "save is answered with 401", "X-ManyWho-... on")


@pytest.mark.parametrize(("path", "verdict"), [("/flow", "ok"), ("", "fail"), ("/other", "fail")])
def test_a_prefix_that_the_receiver_knows(tmp_path, path, verdict):
    with serving(tmp_path, STORAGE_PUBLIC_PREFIX="/flow") as running, proxy(running.url, strips(path or "-")) as url:
        report = doctor("--roundtrip", "--url", url + path, **running.environ)
        found = report.one("proxy", verdict)
        assert {"/flow": "", "": "unset STORAGE_PUBLIC_PREFIX", "/other": "STORAGE_PUBLIC_PREFIX=/other"}[
            path
        ] in found.fix
        report.one("roundtrip", "ok")


def test_a_public_address_with_tls_is_verified(tmp_path, running):
    from tests.support.proxies import tls_proxy

    with tls_proxy(running.url, "", tmp_path) as url:
        report = doctor("--url", url, **running.environ)
        report.one("proxy", "fail", "certificate", "--ca FILE")
        words = ("--ca", "authority.pem", "--client-cert", "client.pem", "--client-key", "client.key")
        report = doctor("--roundtrip", "--url", url, *words, cwd=tmp_path, **running.environ)
        assert report.of("proxy", "fail") == []
        report.one("roundtrip", "ok")
    report = doctor("--url", url, **running.environ)
    report.one("proxy", "fail", "cannot be reached", "curl -v")
