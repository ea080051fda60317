"""Lenient where nothing is lost: what other libraries write, or a platform may add, and means the same. Cases A14, B07, B21 and B22."""

import json
import time
import uuid

import pytest

from receiver import envelope, problems, signature
from receiver.jose.p384 import point_of, private_key
from receiver.mock_platform import tokens
from receiver.mock_platform.forging import b64, jws, unb64
from receiver.mock_platform.keys import KeyPair, StoreKeys
from tests.fuzz import forge
from tests.support.platform_client import assert_problem, loaded, ring_of

SIGNATURE = "X-ManyWho-Signature"
UNKNOWN = {
    "x5t": {"x5t": "dGhlIFNIQS0x", "x5t#S256": "dGhlIFNIQS0y"},
    "ver": {"ver": "2.0"},
    "iat": {"iat": 1_800_000_000, "exp": "x", "nbf": None},
    "an object": {"x": {"a": [1, {"b": None}], "crit": ["x"], "jwk": {}}},
    "many": {f"m{number}": number for number in range(60)},
    "long": {"x": "y" * 900},
    "names in another case": {"Crit": ["x"], "JWK": {}, "Alg": "none", "B64": False},
    "p2c": {"p2c": 10**9, "p2s": "AAAA", "tag": "", "iv": ""},
    "a large number": {"x": 10**300},
    "typ of 255 characters": {"typ": "x" * 255},
    "a typ of RFC 9068": {"typ": "application/at+jwt"},
}


@pytest.fixture
def stored(platform, state):
    """Return a function that saves the state in a token and asserts that it is what is loaded."""

    def check(token):
        answer = platform.post([{"token": token}])
        assert answer.status == 204, answer.body
        assert loaded(platform, state["id"]) == state["content"]

    return check


def signed(claims, key: KeyPair, **members) -> str:
    return jws({"alg": "ES384", "kid": key.kid} | members, claims, key.jwk)


@pytest.mark.case("B21")
@pytest.mark.parametrize("members", UNKNOWN)
def test_members_of_a_header_that_nobody_knows_are_ignored_in_all_three_tokens(
    platform, state, stored, members, unchanged
):
    extra, keys = UNKNOWN[members], platform.keys
    claims = tokens.state_claims(state)
    stored(tokens.seal(signed(claims, keys.platform, **extra), keys.receiver))
    stored(tokens.seal(tokens.sign(claims, keys.platform), keys.receiver, **extra))
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path)
    made = signed(tokens.request_claims(platform.tenant, path), keys.platform, **extra)
    answer = platform.call("DELETE", path, json.dumps([state["id"]]).encode(), headers | {SIGNATURE: made})
    assert answer.status == 204
    assert platform.load(state["id"]).status == 404


@pytest.mark.case("B21")
@pytest.mark.parametrize(
    "member", ['"crit":[]', '"crit":null', '"b64":true', '"jwk":{}', '"jku":""', '"x5u":""', '"x5c":[]']
)
def test_an_extension_or_a_key_in_any_of_the_three_headers_is_refused(member):
    _refused_everywhere(lambda header: header.replace(b"{", b"{" + member.encode() + b",", 1))


@pytest.mark.case("B21")
@pytest.mark.parametrize("member", ['"x":1', '"x":{"y":1,"y":2}', '"\\u006bid":"x"'])
def test_a_member_twice_is_refused_in_any_of_the_three_headers(member):
    twice = member if "y" in member or "kid" in member else f"{member},{member}"
    _refused_everywhere(lambda header: header.replace(b"{", b"{" + twice.encode() + b",", 1))


@pytest.mark.case("B21")
@pytest.mark.parametrize(
    "member", ['"typ":1', '"typ":null', '"typ":["JWT"]', '"typ":"\\u00e9"', '"typ":"' + "x" * 256 + '"']
)
def test_a_known_member_of_a_wrong_type_is_refused_in_any_of_the_three_headers(member):
    _refused_everywhere(lambda header: header.replace(b"{", b"{" + member.encode() + b",", 1))


@pytest.mark.case("B21")
def test_a_header_of_unknown_members_has_the_size_of_a_header():
    _refused_everywhere(lambda header: header.replace(b"{", b'{"x":"' + b"y" * 1600 + b'",', 1))


FORGED = StoreKeys(KeyPair.of(forge.PLATFORM.jwk), KeyPair.of(forge.RECEIVER.jwk))
TENANT, NOW = "11111111-2222-4333-8444-555555555555", 1_800_000_000


def _claims() -> dict:
    id = str(uuid.UUID(int=3))
    state = {"id": id, "tenant": TENANT, "flow": id, "flowVersion": id, "isDone": True, "content": "{}"}
    return tokens.state_claims(state | {"createdAt": "2026-01-01T00:00Z", "updatedAt": "2026-01-01T00:00Z"}, NOW)


def _opened(outer: bytes, inner: bytes, claims: dict | None = None):
    plain = forge.deflated(forge.signed(inner, json.dumps(claims or _claims()).encode()))
    token = forge.sealed(outer, plain).decode()
    return envelope.open_states([token], TENANT, ring_of(FORGED), NOW, 30, 1 << 20)[0]


def _refused_everywhere(change):
    """Assert that a header which ``change`` makes of a good one is refused in a state's two tokens and a signature."""
    path = f"/api/storage/1/states/{TENANT}"
    assert _opened(forge.JWE_HEADER, forge.JWS_HEADER).content.text == "{}"
    for outer, inner in ((change(forge.JWE_HEADER), forge.JWS_HEADER), (forge.JWE_HEADER, change(forge.JWS_HEADER))):
        with pytest.raises(problems.BadRequest) as refusal:
            _opened(outer, inner)
        assert refusal.value.message == "item 0: the token cannot be opened"
    claims = json.dumps(tokens.request_claims(TENANT, path, NOW)).encode()
    named = {signature.PLATFORM_KEY_ID: forge.PLATFORM.kid, signature.RECEIVER_KEY_ID: forge.RECEIVER.kid}
    for header, accepted in ((forge.JWS_HEADER, True), (change(forge.JWS_HEADER), False)):
        headers = named | {SIGNATURE: forge.signed(header, claims).decode()}
        if accepted:
            signature.check(headers, path, TENANT, ring_of(FORGED), NOW, 30)
        else:
            with pytest.raises(problems.SignatureRefused):
                signature.check(headers, path, TENANT, ring_of(FORGED), NOW, 30)


@pytest.mark.case("B06", "B07")
@pytest.mark.parametrize("cty", ["JWT", "jWt", "application/jwt", "Application/JWT", "APPLICATION/jwt"])
def test_a_token_says_in_any_case_that_it_holds_a_jwt(platform, state, stored, cty):
    stored(tokens.seal_state(state, platform.keys, cty=cty))


@pytest.mark.case("B10")
@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc", "kid": "x", "alg": "ECDH-ES+A192KW"},
        {"key_ops": ["deriveKey"] * 40, "ext": True},
        {"x5c": ["MIIB"], "jwk": {"kty": "EC"}, "jku": "http://127.0.0.1:9/"},
        {"g": "AA", "p": "AA", "n": "AA", "k": 1},
        {"x": None},
    ],
)
def test_other_members_of_an_ephemeral_key_are_ignored_at_no_cost(members):
    text = json.dumps(json.loads(forge._POINT) | {name: value for name, value in members.items() if name != "x"})
    header = forge.JWE_HEADER.replace(forge.EPK, text.encode())
    began = time.process_time()
    assert _opened(header, forge.JWS_HEADER).content.text == "{}"
    assert time.process_time() - began < 0.05


def ephemeral_with_zero(name: str) -> forge.Pair:
    """Return the first pair whose coordinate ``name`` begins with a zero."""
    for number in range(1000, 10_000):
        x, y = point_of(private_key(number.to_bytes(48)).public_key())
        if {"x": x, "y": y}[name][0] == 0:
            pair = forge.Pair("zero")
            pair.key = private_key(number.to_bytes(48))
            pair.jwk = {"kty": "EC", "crv": "P-384", "x": b64(x), "y": b64(y)}
            return pair
    raise AssertionError(name)


@pytest.mark.case("B22")
@pytest.mark.parametrize("name", ["x", "y"])
@pytest.mark.parametrize("form", ["whole", "without zeros", "with a sign", "without zeros but one"])
def test_a_coordinate_of_an_ephemeral_key_may_lack_zeros_or_have_a_sign_octet(monkeypatch, name, form):
    pair = ephemeral_with_zero(name)
    data = unb64(pair.jwk[name])
    spelled = {
        "whole": data,
        "without zeros": data.lstrip(b"\0"),
        "with a sign": b"\0" + data,
        "without zeros but one": b"\0" + data.lstrip(b"\0"),
    }[form]
    point = json.dumps(pair.jwk | {name: b64(spelled)}, separators=(",", ":")).encode()
    monkeypatch.setattr(forge, "_POINT", point)
    monkeypatch.setattr(forge, "_SECRET", pair.key.exchange(forge.ec.ECDH(), forge.RECEIVER.key.public_key()))
    forge._wrapping_key.cache_clear()
    try:
        assert _opened(forge.JWE_HEADER, forge.JWS_HEADER).content.text == "{}"
    finally:
        forge._wrapping_key.cache_clear()


@pytest.mark.case("A14", "B17")
@pytest.mark.parametrize("name", ["nbf", "iat", "jti"])
def test_a_claim_of_null_counts_as_absent(platform, state, stored, name):
    stored(
        tokens.seal(
            tokens.sign(tokens.state_claims(state) | {name: None}, platform.keys.platform), platform.keys.receiver
        )
    )
    path = f"/api/storage/1/states/{platform.tenant}"
    for method, where, body, status in (
        ("GET", f"{path}/{state['id']}", None, 200),
        ("DELETE", path, json.dumps([state["id"]]).encode(), 401 if name == "jti" else 204),
    ):
        claims = tokens.request_claims(platform.tenant, where) | {name: None}
        headers = platform.headers(where) | {SIGNATURE: tokens.sign(claims, platform.keys.platform)}
        assert platform.call(method, where, body, headers).status == status
    assert platform.load(state["id"]).status == (200 if name == "jti" else 404)


@pytest.mark.case("D07")
def test_a_byte_order_mark_before_a_body_is_skipped(platform, state):
    path = f"/api/storage/1/states/{platform.tenant}"
    body = json.dumps([{"token": tokens.seal_state(state, platform.keys)}]).encode()
    assert platform.call("POST", path, b"\xef\xbb\xbf" + body).status == 204
    assert loaded(platform, state["id"]) == state["content"]
    assert platform.call("DELETE", path, b"\xef\xbb\xbf" + json.dumps([state["id"]]).encode()).status == 204
    assert platform.load(state["id"]).status == 404


@pytest.mark.case("D07")
@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("body", ['[{"token": "a", "token": "b"}]', '[{"x": 1, "\\u0078": 2}]', '[[{"a": 1, "a": 1}]]'])
def test_a_member_twice_in_a_body_is_reported_as_that(platform, unchanged, caplog, method, body):
    with unchanged():
        answer = platform.call(method, f"/api/storage/1/states/{platform.tenant}", body.encode())
    assert_problem(answer, 400, "The body holds a member twice")
    assert_problem(
        platform.call(method, f"/api/storage/1/states/{platform.tenant}", b"[}"), 400, "is not JSON in UTF-8"
    )
