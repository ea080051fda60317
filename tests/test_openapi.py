"""The description of the API is true: of its names, and of what the receiver answers to thousands of requests made from it."""

import json
import re
import zlib
from io import BytesIO
from pathlib import Path

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

import receiver
from receiver import problems, routes, schemas, signature
from receiver.app import create_app
from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun
from receiver.settings import Settings
from receiver.stores import open_store
from tests.support.platform_client import InProcess, ring_of

pytestmark = pytest.mark.slow

DESCRIPTION = Path(receiver.__file__).with_name("openapi.yaml")
CALLS = [("/health", "GET"), ("/states/{tenant}/{id}", "GET")]
CALLS += [("/states/{tenant}", "POST"), ("/states/{tenant}", "DELETE")]
TRIED = [(*call, mode) for call in CALLS for mode in GenerationMode if mode.is_positive or "tenant" in call[0]]
CHECKED = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"]
CHECKED += ["response_schema_conformance", "negative_data_rejection", "unsupported_method"]
TOKEN = re.compile(r"[\w-]+(\.[\w-]+){4}", re.ASCII)
METHODS = {"get", "post", "delete", "put", "patch", "options", "head", "trace"}


@pytest.fixture(scope="module")
def described():
    return yaml.safe_load(DESCRIPTION.read_text())


def test_it_names_exactly_the_calls(app, described):
    ours = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD"}
    }
    base = described["servers"][0]["url"]
    assert base == routes.calls.url_prefix
    assert ours == {
        (base + path, method) for path, item in described["paths"].items() for method in item if method in METHODS
    }


def test_it_names_exactly_the_statuses_and_their_texts(described):
    replies = described["components"]["responses"]
    assert {int(status) for status in replies} == set(problems._MESSAGES)
    for status, reply in replies.items():
        body, code, headers = problems.reply(int(status), problems.message_of(int(status)), "/api/storage/1/…")
        assert (reply["content"]["application/json"]["example"], str(code)) == (body, status)
        assert set(headers) <= set(reply["headers"])
    for item in described["paths"].values():
        for method in METHODS & set(item):
            for status, reply in item[method]["responses"].items():
                assert status in ("200", "204") or reply == {"$ref": f"#/components/responses/{status}"}


def test_it_names_exactly_the_claims_and_headers(described):
    schema = described["components"]["schemas"]["StateClaims"]
    fields = {field.data_key or name: field.required for name, field in schemas.StateClaims().fields.items()}
    assert set(schema["properties"]) == set(fields)
    assert set(schema["required"]) == {name for name, required in fields.items() if required}
    assert {scheme["name"] for scheme in described["components"]["securitySchemes"].values()} == {
        *(signature.SIGNATURE, signature.PLATFORM_KEY_ID, signature.RECEIVER_KEY_ID)
    }


class Signing:
    """The WSGI application behind one who signs: each request gets a signature, and most made-up tokens become real ones.

    Otherwise nothing would get past the first check. What it does to a request follows from the request alone.
    """

    def __init__(self, application, keys):
        self.application, self.keys, self.seen = application, keys, []

    def __call__(self, environ, start_response):
        path = environ["REQUEST_URI"].partition("?")[0]
        tenant = path.split("/")[5] if path.count("/") >= 5 else ""
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        chance = zlib.crc32(path.encode() + body)
        if chance % 8:  # else what was generated, which no key has signed
            signed = self._headers(tenant, path, damaged=chance % 8 == 1)
            environ |= {name: value for name, value in signed.items() if name in environ}
        if environ["REQUEST_METHOD"] == "POST":
            body = self._with_tokens(body, tenant)
        if environ["REQUEST_METHOD"] == "GET" and chance % 2:
            state = FlowRun(tenant).state() | {"id": path.rpartition("/")[2]}
            InProcess(self.application.test_client(), tenant, self.keys).save(state)
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}

        def start(status, headers, exc_info=None):
            self.seen.append((environ["REQUEST_METHOD"], int(status[:3])))
            return start_response(status, headers, exc_info)

        return self.application(environ, start)

    def _headers(self, tenant, path, damaged):
        signed = tokens.sign(tokens.request_claims(tenant, path), self.keys.platform)
        return {
            "HTTP_X_MANYWHO_SIGNATURE": signed[:-9] if damaged else signed,
            "HTTP_X_MANYWHO_PLATFORM_KEY_ID": self.keys.platform.kid,
            "HTTP_X_MANYWHO_RECEIVER_KEY_ID": self.keys.receiver.kid,
        }

    def _with_tokens(self, body, tenant):
        try:
            items = json.loads(body)
        except ValueError:
            return body
        for item in items if isinstance(items, list) else ():
            made_up = item.get("token") if isinstance(item, dict) else None
            if isinstance(made_up, str) and TOKEN.fullmatch(made_up):  # a bad one stays as bad as it was made
                item["token"] = self._token(made_up, tenant)
        return json.dumps(items).encode()

    def _token(self, made_up, tenant):
        chance = zlib.crc32(made_up.encode())
        state = FlowRun(tenant, chance % 5).state() | ({"flow": made_up} if chance % 4 == 3 else {})
        token = tokens.seal_state(state, self.keys, compressed=bool(chance % 3))
        return (made_up, token[: chance % len(token)], token, token)[chance % 4]


@pytest.fixture(scope="module")
def signing(keys, tmp_path_factory):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('openapi')}/states.db", 5)
    store.prepare()
    yield Signing(create_app(Settings(), ring_of(keys), store), keys)
    store.close()


@pytest.mark.parametrize(("path", "method", "mode"), TRIED)
def test_what_is_answered_is_what_is_described(signing, path, method, mode):
    schema = schemathesis.openapi.from_path(DESCRIPTION)
    schema.app = signing
    schema.config.checks.negative_data_rejection.expected_statuses += ["413"]

    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def conforms(case):
        case.call_and_validate(checks=CHECKS.get_by_names(CHECKED))

    conforms()


def test_the_requests_went_everywhere(signing):
    """Runs last: what was made from the description met each kind of answer that needs no broken store."""
    assert {("GET", 200), ("GET", 404), ("GET", 401), ("POST", 204), ("POST", 400), ("POST", 401)} <= set(signing.seen)
    assert {("DELETE", 204), ("DELETE", 400), ("DELETE", 401)} <= set(signing.seen)
