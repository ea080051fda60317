"""Stage 1: the claims of a request signature. Their times are set in the claims, so no check has to wait."""

import time
import uuid
from collections.abc import Callable

from receiver.conformance.answers import same_meaning
from receiver.conformance.checks.refusing import literal, makers, refused, refused_claims
from receiver.conformance.registry import check
from receiver.conformance.trial import LATER, Trial
from receiver.mock_platform.json_values import JSON

_HOUR = 3600
_ODD_TIMES = ("null", '"1e9"', "[]", "{}", "true", "1e400", "Infinity", "NaN", "-1", "1" * 5000)


def _accepted(trial: Trial, **claims: JSON) -> None:
    state = trial.stored()
    answer = trial.send("GET", trial.path(state["id"]), **claims)
    trial.expect(answer, 200, what="GET with " + ", ".join(claims))
    body = trial.body(state | {"updatedAt": LATER})
    trial.expect(trial.send("POST", trial.path(), body, **claims), 204, what="POST with " + ", ".join(claims))


@check("claims.exp-missing", "must", "The receiver refuses a signature without an expiry.", "A12")
def exp_missing(trial: Trial) -> None:
    refused_claims(trial, {"no exp": {"exp": ...}})


@check("claims.exp-past", "must", "The receiver refuses an expired signature.", "A13")
def exp_past(trial: Trial) -> None:
    refused_claims(trial, {"an hour ago": {"exp": int(time.time()) - _HOUR}, "in 1970": {"exp": 1}})


@check("claims.exp-far", "must", "The receiver refuses a signature that is valid for longer than five minutes.", "A13")
def exp_far(trial: Trial) -> None:
    now = int(time.time())
    refused_claims(trial, {"in a day": {"exp": now + 24 * _HOUR}, "in a year": {"exp": now + 365 * 24 * _HOUR}})


@check(
    "claims.exp-five-minutes", "must", "The receiver accepts a signature that is valid for exactly five minutes.", "A13"
)
def exp_five_minutes(trial: Trial) -> None:
    _accepted(trial, exp=int(time.time()) + 300)


@check(
    "claims.exp-bounds",
    "should",
    "The receiver allows less than two minutes of clock skew at either end of exp.",
    "A13; protocol, section 3.5",
)
def exp_bounds(trial: Trial) -> None:
    now = int(time.time())
    refused_claims(trial, {"2 minutes ago": {"exp": now - 120}, "7 minutes ahead": {"exp": now + 425}})


@check(
    "claims.exp-skew",
    "should",
    "A clock that differs by a few seconds does not stop the flows.",
    "A13; protocol, section 3.5",
)
def exp_skew(trial: Trial) -> None:
    _accepted(trial, exp=time.time() - 5)
    _accepted(trial, exp=time.time() + 305)


@check("claims.exp-odd", "should", "An exp that is not a time is answered 401, never 500.", "A12")
def exp_odd(trial: Trial) -> None:
    refused(trial, {text[:20]: literal(trial, "exp", text) for text in _ODD_TIMES}, methods=("GET", "DELETE"))


@check("claims.nbf-future", "must", "The receiver refuses a signature that is not valid yet.", "A14")
def nbf_future(trial: Trial) -> None:
    refused_claims(trial, {"in four minutes": {"nbf": int(time.time()) + 240}})


@check("claims.nbf-past", "must", "The receiver accepts a signature that has been valid for a while.", "A14")
def nbf_past(trial: Trial) -> None:
    _accepted(trial, nbf=int(time.time()) - 120)


@check("claims.nbf-absent", "must", "A signature may leave out nbf.", "A14")
def nbf_absent(trial: Trial) -> None:
    _accepted(trial, nbf=...)


@check("claims.nbf-null", "should", "An nbf of null counts as absent.", "A14")
def nbf_null(trial: Trial) -> None:
    _accepted(trial, nbf=None)


@check("claims.nbf-odd", "should", "An nbf that is not a time is answered 401, never 500.", "A14")
def nbf_odd(trial: Trial) -> None:
    odd = [text for text in _ODD_TIMES if text not in ("-1", "null")]
    refused(trial, {text[:20]: literal(trial, "nbf", text) for text in odd}, methods=("GET", "DELETE"))


@check("claims.aud-other", "must", "A signature for another tenant gives no access to this one.", "A15")
def aud_other(trial: Trial) -> None:
    other = str(uuid.uuid4())
    refused_claims(trial, {"another tenant": {"aud": other}, "a list of others": {"aud": [other, "manywho"]}})


@check("claims.aud-missing", "must", "The receiver refuses a signature without an audience.", "A15")
def aud_missing(trial: Trial) -> None:
    refused_claims(trial, {"no aud": {"aud": ...}})


@check("claims.aud-list", "must", "aud may be a list that contains the tenant.", "A15, RFC 7519 4.1.3")
def aud_list(trial: Trial) -> None:
    _accepted(trial, aud=["somebody", trial.tenant])


@check("claims.aud-odd", "should", "An aud of another type is answered 401, never 500.", "A15")
def aud_odd(trial: Trial) -> None:
    values: tuple[JSON, ...] = ([], {}, None, "", 1, [1], [None], [[]])
    refused_claims(trial, {repr(value): {"aud": value} for value in values}, methods=("GET", "DELETE"))


@check(
    "claims.aud-case",
    "should",
    "aud is compared as text: the same tenant in another letter case is another audience.",
    "A15",
)
def aud_case(trial: Trial) -> None:
    refused_claims(trial, {"upper case": {"aud": trial.tenant.upper()}})


@check("claims.iss", "must", "The receiver accepts request signatures from the issuer manywho only.", "A16")
def iss(trial: Trial) -> None:
    refused_claims(
        trial, {"another": {"iss": "somebody"}, "missing": {"iss": ...}, "the tenant": {"iss": trial.tenant}}
    )


@check("claims.iss-odd", "should", "An iss with another spelling or type is answered 401, never 500.", "A16")
def iss_odd(trial: Trial) -> None:
    refused_claims(trial, {repr(v): {"iss": v} for v in ("ManyWho", ["manywho"], None, 1)}, methods=("GET", "DELETE"))


@check("claims.sub-missing", "must", "The receiver refuses a signature without a subject.", "A16")
def sub_missing(trial: Trial) -> None:
    refused_claims(trial, {"no sub": {"sub": ...}})


@check("claims.sub-odd", "should", "A sub that is empty or of another type is answered 401.", "A16")
def sub_odd(trial: Trial) -> None:
    refused_claims(trial, {repr(value): {"sub": value} for value in (None, "", 1)}, methods=("GET", "DELETE"))


@check(
    "claims.path-missing",
    "must",
    "The receiver refuses a signature without a path, because it would be valid for every path.",
    "A17",
)
def path_missing(trial: Trial) -> None:
    refused_claims(trial, {"no path": {"path": ...}})


@check("claims.path-other", "must", "A signature for one path gives no access to another.", "A17")
def path_other(trial: Trial) -> None:
    other = trial.target.signed_path(trial.path(str(uuid.uuid4())))
    refused_claims(trial, {"another state's": {"path": other}, "health's": {"path": "/api/storage/1/health"}})


@check("claims.path-exact", "must", "The whole path is compared: no prefix matches, and no trailing slash.", "A17")
def path_exact(trial: Trial) -> None:
    _paths(
        trial, lambda path: path[:-1], lambda path: path + "/", lambda path: path + "/x", lambda _: "/", lambda _: ""
    )


@check(
    "claims.path-spelling",
    "should",
    "The path is compared exactly as sent: letter case, host, query and encoding all count.",
    "A17",
)
def path_spelling(trial: Trial) -> None:
    _paths(
        trial,
        lambda path: path.upper(),
        lambda path: path + "?a=b",
        lambda path: "http://localhost" + path,
        lambda path: path.replace("storage", "%73torage"),
        lambda path: path.replace("/states/", "/states//"),
        lambda path: "/x/.." + path,
        lambda path: [path],
        lambda _: None,
    )


def _paths(trial: Trial, *changes: Callable[[str], JSON]) -> None:
    example = trial.target.signed_path(trial.path())
    named = {repr(change(example)): change for change in changes}
    make = makers(named, lambda change, path: trial.signature(path, path=change(trial.target.signed_path(path))))
    refused(trial, make, methods=("GET", "DELETE"))


@check(
    "claims.path-encoded",
    "should",
    "A percent-encoded path is signed, and compared, as it was sent.",
    "protocol, section 3.3; A17",
)
def path_encoded(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"])
    encoded = path.replace("/states/", "/%73tates/")
    trial.expect(trial.send("GET", encoded), 200, what="encoded in the path and in the claim")
    plain = trial.headers(encoded, path=trial.target.signed_path(path))
    trial.expect(trial.client.call("GET", encoded, headers=plain), 401, what="encoded in the path only")


@check(
    "claims.path-upper-case",
    "should",
    "UUIDs in upper case name the same state, and the path claim must use the same spelling.",
    "A20",
)
def path_upper_case(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"].upper(), trial.tenant.upper())
    answer = trial.expect(
        trial.send("GET", path, aud=trial.tenant.upper()), 200, what="upper case in the path and in the claim"
    )
    if not same_meaning(trial.client.open(state["id"], answer), state["content"]):
        trial.fail("the state that was saved under the id in lower case", "another content came")
    lower = trial.headers(path, aud=trial.tenant.upper(), path=trial.target.signed_path(trial.path(state["id"])))
    trial.expect(trial.client.call("GET", path, headers=lower), 401, what="upper case in the path only")


@check(
    "claims.jti-missing",
    "should",
    "A change without a jti is answered 401, because it could be replayed forever.",
    "A16; protocol, section 3.4",
)
def jti_missing(trial: Trial) -> None:
    refused_claims(trial, {"no jti": {"jti": ...}}, methods=("POST", "DELETE"))


@check("claims.jti-odd", "should", "A jti that is empty or not text is answered 401, never 500.", "A16")
def jti_odd(trial: Trial) -> None:
    values: tuple[JSON, ...] = (None, "", 1, [], "a\0b")
    refused_claims(trial, {repr(value): {"jti": value} for value in values}, methods=("DELETE",))


@check(
    "claims.not-uuid",
    "should",
    "A tenant or id that is not a UUID is answered 404 with a valid signature, and 401 without one.",
    "protocol, section 8.2",
)
def not_uuid(trial: Trial) -> None:
    for path, tenant in ((trial.path("there"), trial.tenant), (trial.path("there", "here"), "here")):
        unsigned = trial.client.call("GET", path, headers={})
        trial.expect(unsigned, 401, what=f"unsigned {path}")
        if tenant == trial.tenant:
            trial.expect(trial.send("GET", path), 404, what=f"signed {path}")
