"""The calls as HTTP: health, methods, media types and errors. Cases, table E."""

import gzip
import json
import re
import uuid

from receiver.conformance.answers import described, observed
from receiver.conformance.exchanges import masked
from receiver.conformance.registry import check
from receiver.conformance.trial import Trial
from receiver.mock_platform.client import BASE, Answer
from receiver.mock_platform.json_values import JSONObject

_FIELDS = {"action", "invokeType", "kind", "message", "responseBody", "responseHeaders", "statusCode", "uri"}
_REVEALING = re.compile(
    rb"Traceback|\bat [\w.$]+\([\w.]+:\d+\)|File \"|/home/|/usr/|/var/|sqlite|postgres|mysql|mariadb|jdbc|hikari|"
    rb"werkzeug|gunicorn|jwcrypto|psycopg|\b\d+\.\d+\.\d+\b",
    re.IGNORECASE,
)


@check(
    "http.health",
    "must",
    "GET /health answers 200 without a signature, because load balancers call it.",
    "E11; protocol, section 2.1",
)
def health(trial: Trial) -> None:
    trial.expect(trial.client.health(), 200, what="GET /health")


@check("http.health-silent", "should", "The health answer reveals no version, path or store.", "E11")
def health_silent(trial: Trial) -> None:
    answer = trial.expect(trial.client.health(), 200, what="GET /health")
    if found := _REVEALING.search(answer.body):
        trial.fail("no version, path or store", f"{found[0].decode()!r} came")
    if version := re.search(r"\d.*", answer.headers.get("server", "")):
        trial.fail("a Server header without a version, or none", f"{version[0]!r} came")
    if len(answer.body) > 200:
        trial.fail("a short answer", f"{len(answer.body)} bytes came")


@check(
    "http.unknown-address",
    "should",
    "Any other address answers 404 (or 401): never 500, and never a redirect.",
    "E11",
)
def unknown_address(trial: Trial) -> None:
    for path in (
        f"{BASE}/health/",
        f"{BASE}/states",
        f"{BASE}//health",
        "/api/storage/2/health",
        f"{BASE}/states/a/b/c",
    ):
        trial.expect(trial.client.call("GET", path, headers={}), 401, 404, what=f"GET {path}")
    path = trial.path("health")
    trial.expect(trial.client.call("GET", path, headers={}), 401, what="/states/{tenant}/health without a signature")


def _errors(trial: Trial) -> dict[str, Answer]:
    """Return some refusals by what they are about."""
    path, state = trial.path(), trial.path(str(uuid.uuid4()))
    return {
        "404": trial.client.call("GET", state),
        "400": trial.client.call("POST", path, b"{"),
        "400 for a token": trial.client.post([{"token": "x"}]),
        "401": trial.client.call("GET", state, headers={}),
    }


@check(
    "http.error-shape",
    "should",
    "Every error is a JSON problem in the platform's form, with its header.",
    "protocol, section 8.1",
)
def error_shape(trial: Trial) -> None:
    for what, answer in _errors(trial).items():
        trial.expect(answer, int(what[:3]), what=what)
        if (kind := answer.headers.get("content-type", "").partition(";")[0]) != "application/json":
            came = f"{masked(kind)} came" if kind else f"{described(answer)} and without a type"
            trial.fail(f"application/json ({what})", came, observed(answer, what))
        if answer.headers.get("x-manywho-service-problem-kind") != "service":
            trial.fail(
                f"X-ManyWho-Service-Problem-Kind: service ({what})",
                f"{described(answer)}, without it",
                observed(answer, what),
            )
        problem = answer.json
        if set(problem) != _FIELDS or problem["kind"] != "service" or problem["statusCode"] != answer.status:
            trial.fail(f"the fields {', '.join(sorted(_FIELDS))} ({what})", _unlike(problem, answer))


def _unlike(problem: JSONObject, answer: Answer) -> str:
    """Return in words what is wrong with a problem body."""
    wrong = [f"without {name}" for name in sorted(_FIELDS - set(problem))]
    wrong += [f"with {masked(name)}" for name in sorted(set(problem) - _FIELDS)]
    wrong += ["with another kind"] if problem.get("kind") != "service" else []
    wrong += ["with another statusCode"] if problem.get("statusCode") != answer.status else []
    return f"{described(answer)} ({', '.join(wrong)})"


@check(
    "http.error-silent",
    "should",
    "No error reveals a stack trace, a file path, a version or a product name.",
    "protocol, section 8.4",
)
def error_silent(trial: Trial) -> None:
    for what, answer in _errors(trial).items():
        if found := _REVEALING.search(answer.body):
            trial.fail(f"an error that reveals nothing ({what})", f"{found[0].decode()!r} came")


@check("http.head", "should", "HEAD answers like GET, but without the body; without a signature it is refused.", "E08")
def head(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"])
    answer = trial.expect(trial.client.call("HEAD", path), 200, what="HEAD")
    if answer.body:
        trial.fail("no body", "one came")
    trial.expect(trial.client.call("HEAD", path, headers={}), 401, what="HEAD without a signature")
    trial.expect(trial.client.call("HEAD", trial.path(str(uuid.uuid4()))), 404, what="HEAD of an unknown id")


@check(
    "http.other-methods",
    "should",
    "Other methods have no effect: they answer 405, and OPTIONS may answer without a body.",
    "E08",
)
def other_methods(trial: Trial) -> None:
    state = trial.stored()
    body = json.dumps([state["id"]]).encode()
    for method in ("PUT", "PATCH", "TRACE", "FOO", "OPTIONS"):
        for path in (trial.path(), trial.path(state["id"])):
            answer = trial.client.call(method, path, None if method == "TRACE" else body)
            allowed = (405, 501, 200, 204) if method == "OPTIONS" else (405, 501)
            trial.expect(answer, *allowed, what=f"{method} {path}")
            if answer.status == 200 and answer.body:
                trial.fail("a bare answer to OPTIONS", "a body came")
    trial.expect_content(state["id"], state["content"])


@check(
    "http.delete-one",
    "should",
    "DELETE of a single state's address is not in the contract and deletes nothing.",
    "E08",
)
def delete_one(trial: Trial) -> None:
    state = trial.stored()
    trial.expect(trial.send("DELETE", trial.path(state["id"])), 404, 405, what="DELETE /states/{tenant}/{id}")
    trial.expect_content(state["id"], state["content"])


@check("http.method-override", "should", "No header turns a GET into a DELETE.", "E08")
def method_override(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"])
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        answer = trial.client.call("GET", path, headers=trial.headers(path) | {name: "DELETE"})
        trial.expect(answer, 200, what=name)
    trial.expect_content(state["id"], state["content"])


def _typed(trial: Trial, state: JSONObject, kind: str, *allowed: int) -> None:
    path = trial.path()
    headers = trial.headers(path) | {"Content-Type": kind}
    trial.expect(trial.client.call("POST", path, trial.body(state), headers), *allowed, what=f"Content-Type {kind}")


@check("http.content-type", "must", "The receiver accepts JSON with and without a charset, in any letter case.", "E09")
def content_type(trial: Trial) -> None:
    for kind in ("application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8"):
        state = trial.state()
        _typed(trial, state, kind, 204)
        trial.expect_content(state["id"], state["content"])


@check(
    "http.content-type-case",
    "should",
    "Media types are case-insensitive, and their parameters may be quoted.",
    "E09, RFC 9110 8.3.1",
)
def content_type_case(trial: Trial) -> None:
    for kind in ("APPLICATION/JSON;CHARSET=UTF-8", 'application/json; charset="utf-8"'):
        _typed(trial, trial.state(), kind, 204)


@check(
    "http.content-type-other",
    "should",
    "The receiver refuses a body that is not declared as JSON in UTF-8: browsers can send forms, but not JSON.",
    "E09",
)
def content_type_other(trial: Trial) -> None:
    state = trial.state()
    kinds = ("text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
    for kind in (*kinds, "application/jsonx", "application/json; charset=utf-16"):
        _typed(trial, state, kind, 400, 415)
    trial.expect_absent(state["id"], "each save of it was refused")


@check(
    "http.content-encoding", "should", "The receiver refuses a compressed body instead of reading it as JSON.", "E09"
)
def content_encoding(trial: Trial) -> None:
    state = trial.state()
    path = trial.path()
    headers = trial.headers(path) | {"Content-Encoding": "gzip"}
    answer = trial.client.call("POST", path, gzip.compress(trial.body(state)), headers)
    trial.expect(answer, 400, 415, what="Content-Encoding gzip")
    trial.expect_absent(state["id"], "its save was refused")


@check("http.not-an-array", "should", "A JSON body that is not an array is answered 400.", "protocol, section 7.2")
def not_an_array(trial: Trial) -> None:
    state = trial.state()
    item = json.dumps({"token": trial.token(state)}).encode()
    for body in (b"null", b"{}", item, b'"x"', b"1", b"true"):
        trial.expect(trial.send("POST", trial.path(), body), 400, what=f"POST of {body[:10].decode()}")
    trial.expect_absent(state["id"], "its save was refused")


@check("http.not-json", "should", "A body that is not one unambiguous JSON text is answered 400, never 500.", "D07")
def not_json(trial: Trial) -> None:
    state = trial.stored()
    id = state["id"].encode()
    bodies = {
        "100,000 nested arrays, not closed": b"[" * 100_000,
        "100,000 nested arrays, closed": b"[" * 100_000 + b"]" * 100_000,
        "UTF-16": json.dumps([state["id"]]).encode("utf-16"),
        "UTF-32": json.dumps([state["id"]]).encode("utf-32"),
        "broken UTF-8": b'["' + id + b'","\xff"]',
        "a trailing comma": b'["' + id + b'",]',
        "an extra bracket": b'["' + id + b'"]]',
        "NaN": b'["' + id + b'",NaN]',
        "5,000 digits": b'["' + id + b'",' + b"1" * 5000 + b"]",
        "a comment": b"// x\n[]",
        "single quotes": b"['a']",
        "only a space": b" ",
    }
    for what, body in bodies.items():
        for method in ("POST", "DELETE"):
            trial.expect(trial.send(method, trial.path(), body), 400, what=f"{method}: {what}")
    trial.expect_content(state["id"], state["content"])


@check(
    "http.byte-order-mark",
    "should",
    "The receiver skips a UTF-8 byte order mark at the start of a body.",
    "RFC 8259 8.1",
)
def byte_order_mark(trial: Trial) -> None:
    state = trial.state()
    answer = trial.send("POST", trial.path(), b"\xef\xbb\xbf" + trial.body(state))
    trial.expect(answer, 204, what="POST of a body after a byte order mark")
    trial.expect_content(state["id"], state["content"])


@check(
    "http.duplicate-member",
    "should",
    "The receiver refuses an item with two tokens, because two readers could pick different ones.",
    "D07",
)
def duplicate_member(trial: Trial) -> None:
    one, other = trial.state(), trial.state()
    items = f'[{{"token": "{trial.token(one)}", "token": "{trial.token(other)}"}}]'
    trial.expect(trial.send("POST", trial.path(), items.encode()), 400, what="token twice in one item")
    for state in (one, other):
        trial.expect_absent(state["id"], "its request was refused")


@check("http.no-body", "should", "A POST without a body is answered 400.", "C13")
def no_body(trial: Trial) -> None:
    trial.expect(trial.send("POST", trial.path()), 400, what="POST without a body")
    trial.expect(trial.send("POST", trial.path(), b""), 400, what="POST with an empty body")


@check("http.keep-alive", "must", "Each request on a kept-alive connection gets its own answer.", "RFC 9112 9.3")
def keep_alive(trial: Trial) -> None:
    states = [trial.stored() for _ in range(3)]
    for state in states * 2:
        trial.expect_content(state["id"], state["content"])
        trial.expect(trial.client.load(str(uuid.uuid4())), 404, what="GET of an unknown id between two loads")
        trial.expect(trial.client.call("GET", trial.path(state["id"]), headers={}), 400, 401, what="unsigned")
