"""The platform in one process with the application, and what its answers have to be."""

import json
import time

from receiver.keys.keyring import Keyring, parse_key
from receiver.mock_platform.client import Answer, Client


class Clock:
    """Seconds since the epoch, which a test may move."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class InProcess(Client):
    """The mock platform's client, calling the application without a socket."""

    def __init__(self, flask_client, tenant, keys):
        self.flask_client, self.tenant, self.keys = flask_client, tenant, keys

    def call(self, method, path, body=None, headers=None) -> Answer:
        headers = self.headers(path) if headers is None else dict(headers)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        began = time.perf_counter()
        response = self.flask_client.open(path, method=method, data=body, headers=headers)
        found = {name.lower(): value for name, value in response.headers}
        return Answer(response.status_code, found, response.data, time.perf_counter() - began)

    def close(self):
        """There is no connection."""


def ring_of(*stores, tenants=None) -> Keyring:
    """Return the keyring of a receiver with the keys of ``stores`` (StoreKeys), each for any tenant or ``tenants``."""
    found = []
    for number, keys in enumerate(stores):
        tenant = tenants[number] if tenants else None
        found.append(parse_key(json.dumps(keys.platform.public()), "platform", "a test", tenant))
        found.append(parse_key(json.dumps(keys.receiver.private()), "receiver", "a test", tenant))
    return Keyring(found)


def loaded(platform, id) -> str:
    """Return the content that a GET of ``id`` answers."""
    answer = platform.load(id)
    assert answer.status == 200, answer.body
    return platform.open(id, answer)


def assert_problem(answer, status, *texts):
    """Assert that ``answer`` is an error (protocol, section 8.1) with ``status``, its message holding ``texts``."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-manywho-service-problem-kind"] == "service"
    problem = answer.json
    assert set(problem) == {
        *("action", "invokeType", "kind", "message", "responseBody", "responseHeaders", "statusCode", "uri")
    }
    assert problem["kind"] == "service"
    assert problem["statusCode"] == status
    for text in texts:
        assert text in problem["message"]
