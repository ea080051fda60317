"""Stage 4: the reply to a GET, checked as the platform checks it. Protocol, section 6; case B20."""

import json
import time
import uuid
from dataclasses import dataclass

from jwcrypto import jwe, jws

from receiver.conformance.answers import same_meaning
from receiver.conformance.registry import check
from receiver.conformance.trial import Failed, Trial
from receiver.mock_platform.forging import unb64
from receiver.mock_platform.json_values import JSONObject

_SOURCE = "protocol, section 6"
_HIDDEN = "a content that must stay secret"


@dataclass(frozen=True)
class Reply:
    """The parts of a reply: both headers, the claims, the content key, the iv and the signed token."""

    outer: JSONObject
    inner: JSONObject
    claims: JSONObject
    key: bytes
    iv: bytes
    signed: str


def _opened(trial: Trial, id: str) -> Reply:
    """Return the reply to a GET of ``id``; fail unless the platform's key decrypts it."""
    answer = trial.expect(trial.client.load(id), 200, what="GET of a stored state")
    token = answer.json.get("token")
    if not isinstance(token, str) or token.count(".") != 4:
        parts = token.count(".") + 1 if isinstance(token, str) else "no"
        trial.fail("a compact JWE of 5 parts", f"a token of {parts} parts came")
    outer = jwe.JWE(algs=[f"ECDH-ES+A{size}KW" for size in (128, 192, 256)] + ["A192CBC-HS384", "A256CBC-HS512"])
    try:
        outer.deserialize(token)
        outer.decrypt(trial.keys.platform.jwk)
        text = outer.plaintext.decode()
        head, payload, _ = text.split(".")
        return Reply(
            outer.jose_header, json.loads(unb64(head)), json.loads(unb64(payload)), outer.cek, outer.objects["iv"], text
        )
    except Exception as cause:
        raise Failed(
            "a JWE for the platform key that contains a JWS", f"{type(cause).__name__} when it was opened"
        ) from cause


def _expect(trial: Trial, what: str, found: object, *expected: object) -> None:
    if found not in expected:
        trial.fail(f"{what} {' or '.join(map(repr, expected))}", f"{found!r} came")


@check("load.unknown", "must", "A state that was never saved is answered 404.", "protocol, section 2.2")
def unknown(trial: Trial) -> None:
    trial.expect(trial.client.load(str(uuid.uuid4())), 404, what="GET of an unknown id")


@check("load.shape", "must", "A reply is a JSON object that contains the token.", "protocol, section 2.2")
def shape(trial: Trial) -> None:
    answer = trial.expect(trial.client.load(trial.stored()["id"]), 200, what="GET")
    _expect(trial, "Content-Type", answer.headers.get("content-type", "").partition(";")[0], "application/json")
    if not isinstance(answer.json, dict) or not isinstance(answer.json.get("token"), str):
        trial.fail('{"token": "…"}', "another JSON value came")


@check("load.encrypted", "must", "Only the platform can read a reply.", _SOURCE)
def encrypted(trial: Trial) -> None:
    state = trial.stored(content=json.dumps({"secret": _HIDDEN}))
    answer = trial.expect(trial.client.load(state["id"]), 200, what="GET")
    _opened(trial, state["id"])
    plain = b"".join(unb64(part) for part in str(answer.json["token"]).split("."))
    if _HIDDEN.encode() in answer.body + plain:
        trial.fail("an encrypted content", "it can be read")


@check("load.encryption", "must", "The reply uses an alg and enc that the platform decrypts.", _SOURCE)
def encryption(trial: Trial) -> None:
    header = _opened(trial, trial.stored()["id"]).outer
    _expect(trial, "alg", header.get("alg"), "ECDH-ES+A192KW")
    _expect(trial, "enc", header.get("enc"), "A192CBC-HS384")


@check("load.encryption-kid", "must", "The reply names the platform key that the request asked for.", _SOURCE)
def encryption_kid(trial: Trial) -> None:
    _expect(trial, "kid", _opened(trial, trial.stored()["id"]).outer.get("kid"), trial.keys.platform.kid)


@check("load.cty", "must", "The JWE header says that it contains a JWT.", _SOURCE)
def cty(trial: Trial) -> None:
    _expect(trial, "cty", _opened(trial, trial.stored()["id"]).outer.get("cty"), "JWT")


@check("load.zip", "should", "The reply is compressed, because states are large.", _SOURCE)
def compressed(trial: Trial) -> None:
    _expect(trial, "zip", _opened(trial, trial.stored()["id"]).outer.get("zip"), "DEF")


@check("load.signed", "must", "The reply is signed by the receiver key with ES384.", _SOURCE)
def signed(trial: Trial) -> None:
    reply = _opened(trial, trial.stored()["id"])
    _expect(trial, "alg", reply.inner.get("alg"), "ES384")
    token = jws.JWS()
    token.allowed_algs = ["ES384"]
    try:
        token.deserialize(reply.signed)
        token.verify(trial.keys.receiver.jwk)
    except Exception as cause:
        raise Failed("a signature by the receiver key", f"{type(cause).__name__} when it was verified") from cause


@check("load.signing-kid", "must", "The signature names the receiver key that the request asked for.", _SOURCE)
def signing_kid(trial: Trial) -> None:
    _expect(trial, "kid", _opened(trial, trial.stored()["id"]).inner.get("kid"), trial.keys.receiver.kid)


@check("load.iss", "must", "iss is the tenant.", _SOURCE)
def iss(trial: Trial) -> None:
    _expect(trial, "iss", _opened(trial, trial.stored()["id"]).claims.get("iss"), trial.tenant)


@check("load.aud", "must", "aud is the platform.", _SOURCE)
def aud(trial: Trial) -> None:
    _expect(trial, "aud", _opened(trial, trial.stored()["id"]).claims.get("aud"), "manywho", ["manywho"])


@check("load.sub", "must", "sub is the requested id, so a reply cannot pass for another state's.", _SOURCE)
def sub(trial: Trial) -> None:
    one, other = trial.stored(), trial.stored()
    for state in (one, other):
        _expect(trial, "sub", _opened(trial, state["id"]).claims.get("sub"), state["id"])


@check("load.exp", "must", "A reply has an expiry, and it lies in the future.", _SOURCE)
def exp(trial: Trial) -> None:
    claims = _opened(trial, trial.stored()["id"]).claims
    value = claims.get("exp")
    if not isinstance(value, int | float) or not 0 < value - time.time() <= 15 * 60:
        trial.fail("an exp within the next minutes", f"{value!r} came")


@check("load.times", "should", "exp is 10 minutes ahead, iat is now, and nbf is 2 minutes ago.", _SOURCE)
def times(trial: Trial) -> None:
    claims, now = _opened(trial, trial.stored()["id"]).claims, time.time()
    for name, offset in (("exp", 600), ("iat", 0), ("nbf", -120)):
        value = claims.get(name)
        if not isinstance(value, int | float) or abs(value - now - offset) > 15:
            came = f"{value - now:+.0f} s" if isinstance(value, int | float) else repr(value)
            trial.fail(f"{name} at {offset:+} s from now", f"{came} came")


@check("load.claims-only", "should", "A reply contains the claims of the contract and no others.", _SOURCE)
def claims_only(trial: Trial) -> None:
    found = set(_opened(trial, trial.stored()["id"]).claims)
    expected = {"iss", "aud", "sub", "exp", "iat", "nbf", "jti", "content"}
    if found != expected:
        trial.fail(f"the claims {', '.join(sorted(expected))}", f"{', '.join(sorted(found ^ expected))} differ")


@check("load.fresh", "must", "No two replies share an ephemeral key, a content key or an iv.", "B20, RFC 7518 8.1")
def fresh(trial: Trial) -> None:
    id = trial.stored()["id"]
    replies = [_opened(trial, id) for _ in range(12)]
    for name, values in (
        ("epk", {json.dumps(reply.outer.get("epk"), sort_keys=True) for reply in replies}),
        ("content key", {reply.key for reply in replies}),
        ("iv", {reply.iv for reply in replies}),
    ):
        if len(values) < len(replies):
            trial.fail(f"12 replies with 12 different values of {name}", f"{len(values)} came")


@check("load.jti", "must", "Each reply has its own jti.", "B20")
def jti(trial: Trial) -> None:
    id = trial.stored()["id"]
    found = [_opened(trial, id).claims.get("jti") for _ in range(5)]
    if not all(found) or len(set(found)) < 5:
        trial.fail("5 replies with 5 different jti", f"{len(set(found))} came")


@check("load.no-change", "must", "Loading a state changes nothing.", "protocol, section 2.2")
def no_change(trial: Trial) -> None:
    state = trial.stored()
    for _ in range(3):
        trial.expect_content(state["id"], state["content"])


@check("load.id-case", "should", "An id in upper case returns the same state, and sub is the id.", "A20")
def id_case(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"].upper())
    answer = trial.expect(trial.send("GET", path), 200, what="GET of the id in upper case")
    if not same_meaning(trial.client.open(state["id"], answer), state["content"]):
        trial.fail("the content that was saved", "another one came")
