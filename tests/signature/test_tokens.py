"""Room 1, who calls: the token of a signature. Table A of the cases."""

import base64
import json
import random

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from receiver.mock_platform import tokens
from receiver.mock_platform.forging import b64, jws
from tests.support.signatures import SIGNATURE, claims_of, signed


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
    check_refused(lambda path: jws(header, claims_of(platform, path), platform.keys.platform.jwk))


@pytest.mark.case("A06")
@pytest.mark.parametrize("pad", [1, 2, 16])
def test_a_signature_of_another_length_is_refused_though_its_numbers_are_right(check_refused, platform, pad):
    def padded(path):
        head, payload, signature = signed(platform)(path).split(".")
        raw = base64.urlsafe_b64decode(signature)
        return f"{head}.{payload}.{b64(bytes(pad) + raw[:48] + bytes(pad) + raw[48:])}"

    check_refused(padded)


@pytest.mark.case("A06")
@pytest.mark.parametrize("spelling", ["padded", "standard"])
def test_a_payload_in_other_base64_is_refused_though_it_is_signed_so(check_refused, platform, spelling):
    def other(path):
        payload = json.dumps(claims_of(platform, path) | {"x": "\u00ff\u00fe?>?>~~~"}, ensure_ascii=False).encode()
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
    check_refused(lambda path: jws(header, claims_of(platform, path), oct_key, alg))


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
    check_refused(lambda path: jws(header, claims_of(platform, path), made, alg))


@pytest.mark.case("A02")
def test_an_unsigned_token_is_refused(check_refused, platform):
    header = {"alg": "none", "kid": platform.keys.platform.kid}
    check_refused(lambda path: jws(header, claims_of(platform, path)))


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
    check_refused(lambda path: jws(header, claims_of(platform, path), attacker.jwk))
    check_refused(lambda path: jws(header, claims_of(platform, path), platform.keys.platform.jwk))
    assert connected == []


@pytest.mark.case("A04")
@pytest.mark.parametrize("depth", [200, 300, 380])
def test_a_header_that_is_nested_deep_is_refused(check_refused, platform, depth):
    deep = b64((depth * "[" + depth * "]").encode())
    check_refused(lambda _path: f"{deep}.AA.{'A' * 128}")


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
        payload = json.dumps(claims_of(platform, path)).encode()
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
    check_refused(lambda path: jws(header, claims_of(platform, path), platform.keys.platform.jwk))


@pytest.mark.case("A09")
@pytest.mark.parametrize("general", [False, True])
def test_a_json_serialization_is_refused(check_refused, platform, general):
    def serialized(path):
        head, payload, signature = signed(platform)(path).split(".")
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
