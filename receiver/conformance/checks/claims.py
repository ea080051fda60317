"""Room 1: what a request signature says. Times are signed ones, so no check waits for any."""

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


@check("claims.exp-missing", "must", "A signature without an end is refused.", "A12")
def exp_missing(trial: Trial) -> None:
    refused_claims(trial, {"no exp": {"exp": ...}})


@check("claims.exp-past", "must", "An expired signature is refused.", "A13")
def exp_past(trial: Trial) -> None:
    refused_claims(trial, {"an hour ago": {"exp": int(time.time()) - _HOUR}, "in 1970": {"exp": 1}})


@check("claims.exp-far", "must", "A signature may not be valid for longer than five minutes ahead.", "A13")
def exp_far(trial: Trial) -> None:
    now = int(time.time())
    refused_claims(trial, {"in a day": {"exp": now + 24 * _HOUR}, "in a year": {"exp": now + 365 * 24 * _HOUR}})


@check("claims.exp-five-minutes", "must", "A signature that is valid for exactly five minutes is accepted.", "A13")
def exp_five_minutes(trial: Trial) -> None:
    _accepted(trial, exp=int(time.time()) + 300)


@check(
    "claims.exp-bounds",
    "should",
    "The skew granted on either end of exp is under two minutes.",
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


@check("claims.exp-odd", "should", "An exp that is no time is answered 401, never 500.", "A12")
def exp_odd(trial: Trial) -> None:
    refused(trial, {text[:20]: literal(trial, "exp", text) for text in _ODD_TIMES}, methods=("GET", "DELETE"))


@check("claims.nbf-future", "must", "A signature that is not valid yet is refused.", "A14")
def nbf_future(trial: Trial) -> None:
    refused_claims(trial, {"in four minutes": {"nbf": int(time.time()) + 240}})


@check("claims.nbf-past", "must", "A signature that has been valid for a while is accepted.", "A14")
def nbf_past(trial: Trial) -> None:
    _accepted(trial, nbf=int(time.time()) - 120)


@check("claims.nbf-absent", "must", "nbf may be absent.", "A14")
def nbf_absent(trial: Trial) -> None:
    _accepted(trial, nbf=...)


@check("claims.nbf-null", "should", "An nbf of null counts as absent.", "A14")
def nbf_null(trial: Trial) -> None:
    _accepted(trial, nbf=None)


@check("claims.nbf-odd", "should", "An nbf that is no time is answered 401, never 500.", "A14")
def nbf_odd(trial: Trial) -> None:
    odd = [text for text in _ODD_TIMES if text not in ("-1", "null")]
    refused(trial, {text[:20]: literal(trial, "nbf", text) for text in odd}, methods=("GET", "DELETE"))


@check("claims.aud-other", "must", "A signature for another tenant opens nothing here.", "A15")
def aud_other(trial: Trial) -> None:
    other = str(uuid.uuid4())
    refused_claims(trial, {"another tenant": {"aud": other}, "a list of others": {"aud": [other, "manywho"]}})


@check("claims.aud-missing", "must", "A signature for nobody is refused.", "A15")
def aud_missing(trial: Trial) -> None:
    refused_claims(trial, {"no aud": {"aud": ...}})


@check("claims.aud-list", "must", "aud may be a list that holds the tenant.", "A15, RFC 7519 4.1.3")
def aud_list(trial: Trial) -> None:
    _accepted(trial, aud=["somebody", trial.tenant])


@check("claims.aud-odd", "should", "An aud of another type is answered 401, never 500.", "A15")
def aud_odd(trial: Trial) -> None:
    values: tuple[JSON, ...] = ([], {}, None, "", 1, [1], [None], [[]])
    refused_claims(trial, {repr(value): {"aud": value} for value in values}, methods=("GET", "DELETE"))


@check(
    "claims.aud-case",
    "should",
    "aud is compared as text: another letter case than the path's is another audience.",
    "A15",
)
def aud_case(trial: Trial) -> None:
    refused_claims(trial, {"upper case": {"aud": trial.tenant.upper()}})


@check("claims.iss", "must", "Only the issuer manywho signs requests.", "A16")
def iss(trial: Trial) -> None:
    refused_claims(
        trial, {"another": {"iss": "somebody"}, "missing": {"iss": ...}, "the tenant": {"iss": trial.tenant}}
    )


@check("claims.iss-odd", "should", "iss in another spelling or type is answered 401, never 500.", "A16")
def iss_odd(trial: Trial) -> None:
    refused_claims(trial, {repr(v): {"iss": v} for v in ("ManyWho", ["manywho"], None, 1)}, methods=("GET", "DELETE"))


@check("claims.sub-missing", "must", "A signature names its subject.", "A16")
def sub_missing(trial: Trial) -> None:
    refused_claims(trial, {"no sub": {"sub": ...}})


@check("claims.sub-odd", "should", "An empty sub, or one of another type, is answered 401.", "A16")
def sub_odd(trial: Trial) -> None:
    refused_claims(trial, {repr(value): {"sub": value} for value in (None, "", 1)}, methods=("GET", "DELETE"))


@check("claims.path-missing", "must", "A signature that is bound to no path would open all of them.", "A17")
def path_missing(trial: Trial) -> None:
    refused_claims(trial, {"no path": {"path": ...}})


@check("claims.path-other", "must", "A signature for one path does not open another.", "A17")
def path_other(trial: Trial) -> None:
    other = trial.target.signed_path(trial.path(str(uuid.uuid4())))
    refused_claims(trial, {"another state's": {"path": other}, "health's": {"path": "/api/storage/1/health"}})


@check("claims.path-exact", "must", "The path is compared as a whole: no prefix, no trailing slash.", "A17")
def path_exact(trial: Trial) -> None:
    _paths(
        trial, lambda path: path[:-1], lambda path: path + "/", lambda path: path + "/x", lambda _: "/", lambda _: ""
    )


@check(
    "claims.path-spelling",
    "should",
    "The path is compared as it was sent: no case, host, query or encoding is ironed out.",
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
    trial.expect(trial.send("GET", encoded), 200, what="encoded in both")
    plain = trial.headers(encoded, path=trial.target.signed_path(path))
    trial.expect(trial.client.call("GET", encoded, headers=plain), 401, what="encoded only where it was sent")


@check(
    "claims.path-upper-case",
    "should",
    "UUIDs in upper case name the same state; the claim has to have the same spelling.",
    "A20",
)
def path_upper_case(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"].upper(), trial.tenant.upper())
    answer = trial.expect(trial.send("GET", path, aud=trial.tenant.upper()), 200, what="upper case in both")
    if not same_meaning(trial.client.open(state["id"], answer), state["content"]):
        trial.fail("the state that was saved under the id in lower case", "another content came")
    lower = trial.headers(path, aud=trial.tenant.upper(), path=trial.target.signed_path(trial.path(state["id"])))
    trial.expect(trial.client.call("GET", path, headers=lower), 401, what="upper case only where it was sent")


@check(
    "claims.jti-missing",
    "should",
    "A change that carries no jti could be replayed for ever: 401.",
    "A16; protocol, section 3.4",
)
def jti_missing(trial: Trial) -> None:
    refused_claims(trial, {"no jti": {"jti": ...}}, methods=("POST", "DELETE"))


@check("claims.jti-odd", "should", "A jti that is no text, or an empty one, is answered 401, never 500.", "A16")
def jti_odd(trial: Trial) -> None:
    values: tuple[JSON, ...] = (None, "", 1, [], "a\0b")
    refused_claims(trial, {repr(value): {"jti": value} for value in values}, methods=("DELETE",))


@check(
    "claims.not-uuid",
    "should",
    "A tenant or id that is no UUID: 404 once the signature holds, 401 before.",
    "protocol, section 8.2",
)
def not_uuid(trial: Trial) -> None:
    for path, tenant in ((trial.path("there"), trial.tenant), (trial.path("there", "here"), "here")):
        unsigned = trial.client.call("GET", path, headers={})
        trial.expect(unsigned, 401, what=f"unsigned {path}")
        if tenant == trial.tenant:
            trial.expect(trial.send("GET", path), 404, what=f"signed {path}")
