"""Room 1: who calls? Table A of the cases."""

import base64
import json
import random
import time
import uuid

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from receiver.app import create_app
from receiver.mock_platform import tokens
from receiver.mock_platform.forging import b64, jws
from tests.conftest import InProcess, assert_problem, loaded, ring_of

SIGNATURE = "X-ManyWho-Signature"


@pytest.fixture
def check_refused(platform, state, unchanged):
    """Return a function that sends a signature header with every call, each refused and without effect."""
    platform.save(state)
    good = {"state": state | {"content": "changed"}}

    def check(signature):
        calls = (
            ("GET", f"/api/storage/1/states/{platform.tenant}/{state['id']}", None),
            ("HEAD", f"/api/storage/1/states/{platform.tenant}/{state['id']}", None),
            ("POST", f"/api/storage/1/states/{platform.tenant}", _body(platform, good["state"])),
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


def _body(platform, *states):
    return json.dumps([{"token": tokens.seal_state(state, platform.keys)} for state in states]).encode()


def _claims(platform, path, /, **changes):
    claims = tokens.request_claims(platform.tenant, path) | changes
    return {name: value for name, value in claims.items() if value is not ...}


def _signed(platform, /, **changes):
    return lambda path: tokens.sign(_claims(platform, path, **changes), platform.keys.platform)


def _signed_as_text(platform, claim, text):
    """Return a signature whose ``claim`` is ``text`` to the letter, which a JSON library might not write."""
    header = {"alg": "ES384", "kid": platform.keys.platform.kid}

    def signed(path):
        claims = json.dumps(_claims(platform, path, **{claim: "PLACE"})).replace('"PLACE"', text)
        return jws(header, claims.encode(), platform.keys.platform.jwk)

    return signed


@pytest.mark.case("A01")
@pytest.mark.parametrize("text", [None, "", ".", "..", "...", "random text", "a.b.c", "Bearer x", "{}", "=.=.="])
def test_a_signature_that_is_no_token_is_refused(check_refused, text):
    check_refused(text)


@pytest.mark.case("A02")
@pytest.mark.parametrize(
    "alg", ["none", "ES256", "ES512", "RS256", "es384", "HS384", "", None, [], ["ES384"], 1, {}, ...]
)
def test_another_label_on_a_signature_that_verifies_is_refused(check_refused, platform, alg):
    header = {"kid": platform.keys.platform.kid} | ({} if alg is ... else {"alg": alg})
    check_refused(lambda path: jws(header, _claims(platform, path), platform.keys.platform.jwk))


@pytest.mark.case("A06")
@pytest.mark.parametrize("pad", [1, 2, 16])
def test_a_signature_of_another_length_is_refused_though_its_numbers_are_right(check_refused, platform, pad):
    def padded(path):
        head, payload, signature = _signed(platform)(path).split(".")
        raw = base64.urlsafe_b64decode(signature)
        return f"{head}.{payload}.{b64(bytes(pad) + raw[:48] + bytes(pad) + raw[48:])}"

    check_refused(padded)


@pytest.mark.case("A06")
@pytest.mark.parametrize("spelling", ["padded", "standard"])
def test_a_payload_in_other_base64_is_refused_though_it_is_signed_so(check_refused, platform, spelling):
    def other(path):
        payload = json.dumps(_claims(platform, path) | {"x": "\u00ff\u00fe?>?>~~~"}, ensure_ascii=False).encode()
        payload += b" " * (1 - len(payload) % 3 if spelling == "padded" else -len(payload) % 3)
        text = (
            base64.urlsafe_b64encode(payload).decode() if spelling == "padded" else base64.b64encode(payload).decode()
        )
        assert set("+/=") & set(text)
        head = b64(json.dumps({"alg": "ES384", "kid": platform.keys.platform.kid}).encode())
        signature = JWA.signing_alg("ES384").sign(platform.keys.platform.jwk, f"{head}.{text}".encode())
        return f"{head}.{text}.{b64(signature)}"

    check_refused(other)


@pytest.mark.case("A02")
@pytest.mark.parametrize("alg", ["HS256", "HS384"])
@pytest.mark.parametrize("secret", ["jwk", "pem", "x"])
def test_an_hmac_keyed_with_the_public_key_is_refused(check_refused, platform, alg, secret):
    public = platform.keys.platform.public()
    key = platform.keys.platform.jwk.get_op_key("verify")
    text = {
        "jwk": json.dumps(public).encode(),
        "pem": key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "x": base64.urlsafe_b64decode(public["x"]),
    }[secret]
    oct_key = JWK(kty="oct", k=b64(text))
    header = {"alg": alg, "kid": platform.keys.platform.kid}
    check_refused(lambda path: jws(header, _claims(platform, path), oct_key, alg))


@pytest.mark.case("A02")
@pytest.mark.parametrize(
    ("alg", "key"),
    [
        ("ES256", {"kty": "EC", "crv": "P-256"}),
        ("ES512", {"kty": "EC", "crv": "P-521"}),
        ("RS256", {"kty": "RSA", "size": 2048}),
    ],
)
def test_another_algorithm_truly_signed_is_refused(check_refused, platform, alg, key):
    made = JWK.generate(**key)
    header = {"alg": alg, "kid": platform.keys.platform.kid}
    check_refused(lambda path: jws(header, _claims(platform, path), made, alg))


@pytest.mark.case("A02")
def test_an_unsigned_token_is_refused(check_refused, platform):
    header = {"alg": "none", "kid": platform.keys.platform.kid}
    check_refused(lambda path: jws(header, _claims(platform, path)))


@pytest.mark.case("A03")
@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
@pytest.mark.parametrize("known_kid", [True, False])
def test_a_key_that_comes_with_the_token_is_never_used(
    check_refused, platform, foreign_keys, monkeypatch, member, known_kid
):
    connected = []
    monkeypatch.setattr("socket.socket.connect", lambda *args: connected.append(args))
    attacker = foreign_keys.platform
    value = {"jwk": attacker.public(), "x5c": ["MIIB"]}.get(member, "http://127.0.0.1:9/key")
    kid = platform.keys.platform.kid if known_kid else attacker.kid
    header = {"alg": "ES384", "kid": kid, member: value}
    check_refused(lambda path: jws(header, _claims(platform, path), attacker.jwk))
    check_refused(lambda path: jws(header, _claims(platform, path), platform.keys.platform.jwk))
    assert connected == []


@pytest.mark.case("A04")
@pytest.mark.parametrize("depth", [200, 300, 380])
def test_a_header_that_is_nested_deep_is_refused(check_refused, platform, depth):
    deep = b64((depth * "[" + depth * "]").encode())
    check_refused(lambda _path: f"{deep}.AA.{'A' * 128}")


@pytest.mark.case("A04")
@pytest.mark.parametrize("kid", ["0d5c7a52-4f0e-4a8c-9d5b-3b6a1f2e7c90", None, 0, {}, [], "", "x" * 36, "\ud800", True])
def test_an_unknown_kid_is_refused(check_refused, platform, kid):
    header = {"alg": "ES384", "kid": kid}
    check_refused(lambda path: jws(header, _claims(platform, path), platform.keys.platform.jwk))
    del header["kid"]
    check_refused(lambda path: jws(header, _claims(platform, path), platform.keys.platform.jwk))


@pytest.mark.case("A06")
def test_no_damaged_signature_passes(platform, state, unchanged):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path)
    good = headers[SIGNATURE]
    chance = random.Random(6)
    body = json.dumps([state["id"]]).encode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    with unchanged():
        for _ in range(1000):
            place = chance.randrange(len(good))
            other = chance.choice(alphabet.replace(good[place], "") + ".")
            headers[SIGNATURE] = good[:place] + other * (good[place] != other) + good[place + 1 :]
            assert platform.call("DELETE", path, body, headers).status == 401
        head, payload, signature = good.split(".")
        for damaged in (
            *(f"{head}.{payload}", f"{payload}.{signature}", f"{head}..{signature}", f".{payload}.{signature}"),
            *(
                f"{head}.{payload}.",
                f"{good}.",
                f"{good}.{signature}",
                f".{good}",
                f"{head}.{payload}.{signature[:-4]}",
            ),
            *(
                f"{head}.{payload}.{signature}AAAA",
                f"{head}.{payload}.{b64(bytes(96))}",
                f"{good}=",
                f" {good[:40]} {good[40:]}",
            ),
            *(f"{head}.{payload}.{b64(bytes(48) + bytes([255] * 48))}", f"{head}.{payload}.{b64(bytes([255] * 96))}"),
        ):
            headers[SIGNATURE] = damaged
            assert platform.call("DELETE", path, body, headers).status == 401, damaged


@pytest.mark.case("A06")
def test_a_signature_in_another_spelling_of_base64url_is_refused(check_refused, platform):
    def other_spelling(path):
        payload = json.dumps(_claims(platform, path)).encode()
        payload = b64(payload + b" " * (1 - len(payload) % 3))  # its last character has 4 unused bits
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        head = b64(json.dumps({"alg": "ES384", "kid": platform.keys.platform.kid}).encode())
        signed = f"{head}.{payload[:-1]}{alphabet[alphabet.index(payload[-1]) | 1]}"
        key = platform.keys.platform.jwk
        return f"{signed}.{b64(JWA.signing_alg('ES384').sign(key, signed.encode()))}"

    check_refused(other_spelling)


@pytest.mark.case("A09")
@pytest.mark.parametrize(
    "members",
    [
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"crit": 1},
        {"b64": False, "crit": ["b64"]},
        {"b64": False},
        {"b64": True},
        {"crit": None},
        {"crit": ["exp"], "exp": 1},
    ],
)
def test_an_extension_of_the_header_is_refused(check_refused, platform, members):
    header = {"alg": "ES384", "kid": platform.keys.platform.kid} | members
    check_refused(lambda path: jws(header, _claims(platform, path), platform.keys.platform.jwk))


@pytest.mark.case("A09")
@pytest.mark.parametrize("general", [False, True])
def test_a_json_serialization_is_refused(check_refused, platform, general):
    def serialized(path):
        head, payload, signature = _signed(platform)(path).split(".")
        one = {"protected": head, "signature": signature}
        if not general:
            return json.dumps({"payload": payload} | one)
        return json.dumps({"payload": payload, "signatures": [one, {"protected": head, "signature": b64(bytes(96))}]})

    check_refused(serialized)


@pytest.mark.case("A10")
def test_a_token_of_a_state_is_no_signature(check_refused, platform, state):
    inner = tokens.sign(tokens.state_claims(state), platform.keys.platform)
    check_refused(inner)
    check_refused(tokens.seal(inner, platform.keys.receiver))
    with_path = tokens.state_claims(state | {"content": ""})
    check_refused(lambda path: tokens.sign(with_path | {"path": path}, platform.keys.platform))


@pytest.mark.case("A11")
def test_a_signature_by_another_key_is_refused(check_refused, platform, foreign_keys):
    own = platform.keys
    for key in (own.receiver, foreign_keys.platform):
        for kid in (own.platform.kid, own.receiver.kid, foreign_keys.platform.kid):
            header = {"alg": "ES384", "kid": kid}
            check_refused(lambda path, header=header, key=key: jws(header, _claims(platform, path), key.jwk))


@pytest.mark.case("A11")
def test_the_platform_key_of_another_tenant_is_refused(store, settings, keys, foreign_keys, state, tenant):
    other = str(uuid.uuid4())
    served = create_app(settings, ring_of(keys, foreign_keys, tenants=[tenant, other]), store)
    mine, theirs = InProcess(served.test_client(), tenant, keys), InProcess(served.test_client(), tenant, foreign_keys)
    assert mine.save(state).status == 204
    assert theirs.load(state["id"]).status == 401
    assert theirs.delete([state["id"]]).status == 401
    # signed by the right key, but naming or sealing to the keys of the other tenant
    headers = mine.headers(f"/api/storage/1/states/{tenant}/{state['id']}")
    headers["X-ManyWho-Platform-Key-ID"] = foreign_keys.platform.kid
    assert mine.call("GET", f"/api/storage/1/states/{tenant}/{state['id']}", headers=headers).status == 400
    sealed_wrong = tokens.seal(tokens.sign(tokens.state_claims(state), keys.platform), foreign_keys.receiver)
    signed_wrong = tokens.seal(tokens.sign(tokens.state_claims(state), foreign_keys.platform), keys.receiver)
    assert mine.post([{"token": sealed_wrong}]).status == 400
    assert mine.post([{"token": signed_wrong}]).status == 400
    assert loaded(mine, state["id"]) == state["content"]


@pytest.mark.case("A12")
@pytest.mark.parametrize(
    "exp",
    ["null", '"1e9"', "[]", "{}", "true", "1e400", "-1e400", "Infinity", "NaN", "-1", "1" * 5000, "1" * 400, '""', "0"],
)
def test_an_exp_that_is_no_time_is_refused(check_refused, platform, exp):
    check_refused(_signed_as_text(platform, "exp", exp))


@pytest.mark.case("A12")
def test_a_missing_exp_is_refused(check_refused, platform):
    check_refused(_signed(platform, exp=...))


@pytest.mark.case("A13", "A14")
@pytest.mark.parametrize(
    ("claim", "offset", "accepted"),
    [
        *(("exp", -31, False), ("exp", -28, True), ("exp", 300, True), ("exp", 328, True), ("exp", 333, False)),
        *(("exp", 365 * 86400, False), ("nbf", 33, False), ("nbf", 28, True), ("nbf", -1e9, True)),
    ],
)
def test_times_are_judged_with_the_clock_skew(platform, state, claim, offset, accepted):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    answer = platform.call("GET", path, headers=platform.headers(path, **{claim: time.time() + offset}))
    assert answer.status == (200 if accepted else 401)


@pytest.mark.case("A14")
@pytest.mark.parametrize("nbf", ["[]", "-Infinity", '"0"', "true", "1e400", "1" * 5000])
def test_an_nbf_that_is_no_time_is_refused(check_refused, platform, nbf):
    check_refused(_signed_as_text(platform, "nbf", nbf))


@pytest.mark.case("A15")
@pytest.mark.parametrize(
    "aud",
    [
        "0d5c7a52-4f0e-4a8c-9d5b-3b6a1f2e7c90",
        [],
        {},
        None,
        ...,
        "",
        1,
        [1],
        [None],
        [[]],
        "UPPER",
        ["UPPER"],
        "manywho",
        "\ud800",
    ],
)
def test_an_audience_without_the_tenant_is_refused(check_refused, platform, aud):
    if aud in ("UPPER", ["UPPER"]):
        aud = platform.tenant.upper()
    check_refused(_signed(platform, aud=aud))


@pytest.mark.case("A15")
def test_an_audience_may_be_a_list_that_holds_the_tenant(platform, state):
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path, aud=["somebody", platform.tenant])
    assert platform.call("POST", path, _body(platform, state), headers).status == 204
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("A16")
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "ManyWho"},
        {"iss": ["manywho"]},
        {"iss": None},
        {"iss": ...},
        {"sub": ...},
        {"sub": None},
        {"sub": ""},
        {"sub": 1},
    ],
)
def test_another_issuer_or_a_missing_subject_is_refused(check_refused, platform, changes):
    check_refused(_signed(platform, **changes))


@pytest.mark.case("A16")
@pytest.mark.parametrize("jti", [..., None, "", 1, [], "x" * 256, "\ud800", "a\0b"])
def test_a_change_without_a_usable_jti_is_refused(platform, state, unchanged, jti):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}"
    with unchanged():
        for method, body in (("POST", _body(platform, state)), ("DELETE", json.dumps([state["id"]]).encode())):
            headers = platform.headers(path) | {SIGNATURE: _signed(platform, jti=jti)(path)}
            assert_problem(platform.call(method, path, body, headers), 401)


@pytest.mark.case("A17")
def test_a_signature_for_another_path_is_refused(check_refused, platform):
    for change in (
        *(lambda path: ..., lambda path: None, lambda path: [path], lambda path: "", lambda path: "/"),
        *(lambda path: path[:-1], lambda path: path + "/", lambda path: path + "?a=b", lambda path: path.upper()),
        *(lambda path: "http://localhost" + path, lambda path: path.replace("storage", "%73torage")),
        *(lambda path: path.replace("/states/", "/states//"), lambda path: "/x/.." + path, lambda path: path + "\0"),
    ):
        check_refused(
            lambda path, change=change: tokens.sign(_claims(platform, path, path=change(path)), platform.keys.platform)
        )


@pytest.mark.case("A17")
def test_the_query_is_not_part_of_the_signed_path(platform, state):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    assert platform.call("GET", path + "?cache=1", headers=platform.headers(path)).status == 200
    assert platform.call("GET", path + "?cache=1", headers=platform.headers(path + "?cache=1")).status == 401


@pytest.mark.case("A17")
def test_the_signed_path_is_the_one_that_was_sent_percent_encoding_included(platform, state):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    encoded = path.replace("states", "%73tates")
    assert platform.call("GET", encoded, headers=platform.headers(encoded)).status == 200
    assert platform.call("GET", encoded, headers=platform.headers(path)).status == 401


@pytest.mark.case("A20")
@pytest.mark.parametrize("audience", ["as in the path", "lower case"])
def test_a_path_in_upper_case_means_the_same_state(platform, state, audience):
    platform.save(state)
    upper = f"/api/storage/1/states/{platform.tenant.upper()}/{state['id'].upper()}"
    aud = platform.tenant.upper() if audience == "as in the path" else platform.tenant
    answer = platform.call("GET", upper, headers=platform.headers(upper, aud=aud))
    assert platform.open(state["id"], answer) == state["content"]
    lower_claim = platform.headers(upper, aud=aud, path=upper.lower())
    assert platform.call("GET", upper, headers=lower_claim).status == 401


@pytest.mark.case("A26")
@pytest.mark.parametrize("header", ["X-ManyWho-Platform-Key-ID", "X-ManyWho-Receiver-Key-ID"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "x",
        "{" + str(uuid.UUID(int=5)) + "}",
        uuid.UUID(int=5).hex,
        f"urn:uuid:{uuid.UUID(int=5)}",
        str(uuid.UUID(int=5)),
    ],
)
def test_a_key_id_that_names_no_key_is_a_bad_request(platform, state, unchanged, header, value):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}"
    calls = (
        ("POST", path, _body(platform, state)),
        ("DELETE", path, json.dumps([state["id"]]).encode()),
        ("GET", f"{path}/{state['id']}", None),
    )
    with unchanged():
        for method, where, body in calls:
            headers = platform.headers(where)
            del headers[header]
            if value is not None:
                headers[header] = value
            assert_problem(platform.call(method, where, body, headers), 400, header)


def test_an_unproven_caller_is_told_nothing_about_keys_or_paths(platform):
    path = f"/api/storage/1/states/{platform.tenant}"
    bodies = set()
    for headers in ({}, {SIGNATURE: "x"}, platform.headers(path) | {SIGNATURE: "x", "X-ManyWho-Platform-Key-ID": "x"}):
        for method in ("POST", "DELETE"):
            answer = platform.call(method, path, b"not json", headers | {"Content-Type": "text/plain"})
            assert_problem(answer, 401)
            bodies.add(answer.body)
    assert len(bodies) == 1


def test_a_tenant_or_id_that_is_no_uuid_is_not_found_once_the_signature_holds(platform):
    for path in ("/api/storage/1/states/here/there", f"/api/storage/1/states/{platform.tenant}/there"):
        tenant = path.split("/")[5]
        assert_problem(platform.call("GET", path, headers=platform.headers(path, aud=tenant)), 404)
        assert_problem(platform.call("GET", path, headers={}), 401)
    path = "/api/storage/1/states/here"
    assert_problem(platform.call("POST", path, b"[]", platform.headers(path, aud="here")), 404)


def test_nothing_is_decrypted_or_parsed_before_the_signature_holds(platform, state, monkeypatch):
    def touched(*_args, **_kwargs):
        raise AssertionError("touched before the signature held")

    for name in (
        "receiver.body.parse",
        "receiver.body.read",
        "receiver.envelope.open_states",
        "receiver.envelope.seal_state",
    ):
        monkeypatch.setattr(name, touched)
    path = f"/api/storage/1/states/{platform.tenant}"
    for method, where in (("POST", path), ("DELETE", path), ("GET", f"{path}/{state['id']}")):
        headers = platform.headers(where) | {SIGNATURE: _signed(platform, path="/elsewhere")(where)}
        assert platform.call(method, where, b"[]", headers).status == 401


def test_a_signature_expires_with_the_receivers_clock(platform, state, clock):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    headers = platform.headers(path)
    for offset, status in ((0, 200), (325, 200), (335, 401), (-325, 401), (-20, 200)):
        clock.offset = offset
        assert platform.call("GET", path, headers=headers).status == status
