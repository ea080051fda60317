"""Fixtures for the tests of request signatures."""

import json

import pytest

from tests.support.platform_client import assert_problem
from tests.support.signatures import SIGNATURE, body_of


@pytest.fixture
def check_refused(platform, state, unchanged):
    """Return a function that sends a signature header with every call, each refused and without effect."""
    platform.save(state)
    good = {"state": state | {"content": "changed"}}

    def check(signature):
        calls = (
            ("GET", f"/api/storage/1/states/{platform.tenant}/{state['id']}", None),
            ("HEAD", f"/api/storage/1/states/{platform.tenant}/{state['id']}", None),
            ("POST", f"/api/storage/1/states/{platform.tenant}", body_of(platform, good["state"])),
            ("DELETE", f"/api/storage/1/states/{platform.tenant}", json.dumps([state["id"]]).encode()),
        )
        with unchanged():
            for method, path, body in calls:
                made = signature(path) if callable(signature) else signature
                headers = platform.headers(path) | {SIGNATURE: made}
                if made is None:
                    del headers[SIGNATURE]
                answer = platform.call(method, path, body, headers)
                assert answer.status == 401, (method, answer.status, answer.body)
                if method != "HEAD":
                    assert_problem(answer, 401, "The request signature is missing or not valid.")

    return check
