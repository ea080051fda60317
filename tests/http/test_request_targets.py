"""The path that is signed is the path that is routed, however a request-target is spelled: gunicorn parses, we check."""

import json
from urllib.parse import unquote

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import run_wsgi_app

from receiver.app import create_app
from receiver.mock_platform.client import BASE
from receiver.settings import Settings
from tests.support.platform_client import InProcess

pytestmark = pytest.mark.slow

TENANT = "11111111-1111-4111-8111-111111111111"
ALL = f"{BASE}/states/{TENANT}"
ONE = f"{ALL}/22222222-2222-4222-8222-222222222222"
PREFIX = "/a%20b"
CAPTURED = f"http:{ALL}?x://h{ONE}"
PIECES = [ALL, ONE, PREFIX, "http:", "x:", "//", "://", "/", "h", "?", "#", ".", "..", ";", "@", ":", "[", "]", "%2F"]
PIECES += ["%61pi", "%ff", "%C3%A9", "%", "\\", "*", f"http://h{ALL}", f"http://h{ONE}"]
TARGETS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40
)


def answered(app, method, target, headers, body=b"") -> tuple[int, str]:
    """Return what ``app`` answers when gunicorn has read the request, and the path that gunicorn would route by."""
    lines = [f"{method} {target} HTTP/1.1", "Host: h", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    data = "\r\n".join([*lines, "", ""]).encode() + body
    config = Config()
    try:
        asked = next(RequestParser(config, iter([data]), ("127.0.0.1", 1)))
    except ParseException:
        return 400, ""
    _, environ = create(asked, None, ("127.0.0.1", 1), ("127.0.0.1", 2), config)
    return int(run_wsgi_app(app, environ)[1][:3]), environ["PATH_INFO"]


@pytest.fixture(params=["", PREFIX])
def called(request, ring, store, keys):
    """A function that calls an application in the process: (method, target, signed path) → (status, routed path)."""
    app = create_app(Settings(public_prefix=request.param), ring, store)
    platform = InProcess(app.test_client(), TENANT, keys)

    def call(method, target, signed):
        return answered(app, method, target, platform.headers(request.param + signed), json.dumps([]).encode())

    call.prefix = request.param
    return call


@pytest.mark.case("A17")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(target=TARGETS)
@example(target=CAPTURED)
@example(target=CAPTURED.replace("?", "#"))
@example(target=f"http://h{ALL}?x://h{ONE}")
@example(target=f"//h{ALL}?x://h{ONE}")
@example(target=f"http:///{ALL}")
def test_only_what_was_signed_is_done_whatever_the_target_looks_like(called, target):
    for signed in (ALL, ONE):
        status, routed = called("DELETE", target, signed)
        assert status in (204, 400, 401, 404, 405)
        if status == 204:
            assert signed == ALL
            assert routed in (ALL, unquote(called.prefix) + ALL)


@pytest.mark.parametrize("target", ["{}", "http://h{}", "x://h:1{}", "{}?", "{}?x://h" + ONE, "http://h{}#" + ONE])
def test_a_target_in_each_of_its_forms_is_let_in_with_the_signature_of_its_path(called, target):
    for path in (ALL, called.prefix + ALL):
        assert called("DELETE", target.format(path), ALL)[0] == 204
        assert called("DELETE", target.format(path), ONE)[0] == 401


def test_a_server_that_routes_by_another_path_than_was_sent_gets_nothing_done(ring, store, keys):
    app = create_app(Settings(), ring, store)
    client = app.test_client()
    headers = InProcess(client, TENANT, keys).headers(ALL)
    for changed, status in (
        ({}, 204),
        ({"SCRIPT_NAME": "", "PATH_INFO": ALL, "RAW_URI": ALL}, 204),
        ({"PATH_INFO": "/" + ALL}, 401),
        ({"SCRIPT_NAME": "/x"}, 401),
        ({"PATH_INFO": ALL.replace("1111-", "2222-", 1)}, 401),
        ({"RAW_URI": "", "REQUEST_URI": ""}, 401),
    ):
        done = client.delete(
            ALL, data=b"[]", headers=headers, content_type="application/json", environ_overrides=changed
        )
        assert done.status_code == status, changed
