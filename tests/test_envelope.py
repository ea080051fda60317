"""Rooms 2 and 4: what a state's token may be, and what the reply is. Table B of the cases."""

import json
import random
import time
import tracemalloc
import uuid
import zlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwcrypto import jwe as jose_jwe
from jwcrypto.jwk import JWK

import receiver.jose.jwe
from receiver import envelope, problems
from receiver.app import create_app
from receiver.jose import p384
from receiver.mock_platform import tokens
from receiver.mock_platform.forging import b64, jwe, jws, unb64, with_header
from receiver.settings import Settings
from tests.support.platform_client import InProcess, assert_problem, loaded, ring_of

NOT_OPENED = "item 0: the token cannot be opened"
PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1


@pytest.fixture
def inner(platform, state):
    """The signed state, not yet encrypted."""
    return tokens.sign(tokens.state_claims(state), platform.keys.platform)


@pytest.fixture
def sealed(platform, inner):
    return tokens.seal(inner, platform.keys.receiver)


@pytest.fixture
def check_not_opened(platform, state, unchanged):
    """Return a function that posts tokens, each of which is refused by the one text, and nothing is stored."""
    platform.save(state | {"id": str(uuid.uuid4())})

    def check(*refused):
        for token in refused:
            with unchanged():
                assert_problem(platform.post([{"token": token}]), 400, NOT_OPENED)

    return check


def encrypted(plain: bytes, key: JWK, **header) -> str:
    """Return ``plain`` as a compact JWE with any ``header`` that jwcrypto can make."""
    token = jose_jwe.JWE(plain, protected=json.dumps(header), algs=[header["alg"], header["enc"]])
    token.add_recipient(key)
    return token.serialize(compact=True)


@pytest.mark.case("B01")
def test_a_signed_state_that_is_not_encrypted_is_refused(check_not_opened, inner):
    check_not_opened(inner)


@pytest.mark.case("B02")
def test_encrypted_claims_that_nobody_signed_are_refused(check_not_opened, platform, state):
    claims = json.dumps(tokens.state_claims(state))
    for compressed in (True, False):
        check_not_opened(tokens.seal(claims, platform.keys.receiver, compressed=compressed))
    check_not_opened(tokens.seal("", platform.keys.receiver), tokens.seal("é", platform.keys.receiver))


@pytest.mark.case("B03")
def test_tokens_nested_in_another_order_are_refused(check_not_opened, platform, inner, sealed, unchanged):
    check_not_opened(tokens.seal(sealed, platform.keys.receiver))
    header = {"alg": "ES384", "kid": platform.keys.platform.kid, "cty": "JWT"}
    twice = jws(header, inner.encode(), platform.keys.platform.jwk)
    check_not_opened(tokens.seal(twice, platform.keys.receiver))
    signature = platform.headers(f"/api/storage/1/states/{platform.tenant}")["X-ManyWho-Signature"]
    with unchanged():
        assert_problem(platform.post([{"token": tokens.seal(signature, platform.keys.receiver)}]), 400, "item 0: ")


@pytest.mark.case("B04")
def test_a_state_signed_by_anyone_but_the_platform_is_refused(check_not_opened, platform, foreign_keys, state):
    claims = tokens.state_claims(state)
    own, other = platform.keys, foreign_keys
    for key in (own.receiver, other.platform, other.receiver):
        for kid in (own.platform.kid, key.kid):
            check_not_opened(tokens.seal(jws({"alg": "ES384", "kid": kid}, claims, key.jwk), own.receiver))
    header = {"alg": "none", "kid": own.platform.kid}
    check_not_opened(tokens.seal(jws(header, claims), own.receiver))
    secret = JWK(kty="oct", k=b64(json.dumps(own.platform.public()).encode()))
    check_not_opened(tokens.seal(jws(header | {"alg": "HS384"}, claims, secret, "HS384"), own.receiver))
    small = JWK.generate(kty="EC", crv="P-256")
    check_not_opened(tokens.seal(jws(header | {"alg": "ES256"}, claims, small, "ES256"), own.receiver))
    check_not_opened(tokens.seal(jws({"alg": "ES384"}, claims, own.platform.jwk), own.receiver))


@pytest.mark.case("B05")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_ways_to_encrypt_are_refused(check_not_opened, platform, inner):
    receiver = platform.keys.receiver
    common = {"kid": receiver.kid, "cty": "JWT", "zip": "DEF"}
    rsa = JWK.generate(kty="RSA", size=2048)
    for alg, key in (
        *(("ECDH-ES", receiver.jwk), ("ECDH-ES+A128KW", receiver.jwk), ("RSA-OAEP", rsa), ("RSA-OAEP-256", rsa)),
        *(("A256KW", JWK.generate(kty="oct", size=256)), ("A256GCMKW", JWK.generate(kty="oct", size=256))),
        *(("dir", JWK.generate(kty="oct", size=384)), ("PBES2-HS256+A128KW", JWK(kty="oct", k=b64(b"password")))),
    ):
        check_not_opened(encrypted(inner.encode(), key, alg=alg, enc="A192CBC-HS384", **common))
    for enc in ("A128CBC-HS256", "A128GCM", "A192GCM", "A256GCM"):
        check_not_opened(encrypted(inner.encode(), receiver.jwk, alg="ECDH-ES+A192KW", enc=enc, **common))


@pytest.mark.case("B06")
@pytest.mark.parametrize("alg", ["ECDH-ES+A192KW", "ECDH-ES+A256KW"])
@pytest.mark.parametrize("enc", ["A192CBC-HS384", "A256CBC-HS512"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("members", [{}, {"apu": b64(b"alice"), "apv": b64(b"bob")}, {"cty": "jwt"}, {"typ": "JWT"}])
def test_every_way_that_the_platform_encrypts_is_understood(platform, state, alg, enc, compressed, members):
    answer = platform.save(state, alg=alg, enc=enc, compressed=compressed, **members)
    assert (answer.status, answer.body) == (204, b"")
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("B07")
@pytest.mark.parametrize("cty", [None, "", "JSON", "application/jws", "application/jwt;v=1", "x/jwt", "JW", 1, ["JWT"]])
def test_a_token_that_does_not_say_it_holds_a_jwt_is_refused(check_not_opened, platform, inner, cty):
    header = {"alg": "ECDH-ES+A192KW", "enc": "A192CBC-HS384", "kid": platform.keys.receiver.kid}
    token = encrypted(inner.encode(), platform.keys.receiver.jwk, **header, **({} if cty is None else {"cty": cty}))
    check_not_opened(token)


def ephemeral_keys():
    """Return epk members that are no key of P-384 at all, or a dangerous one."""
    good = json.loads(JWK.generate(kty="EC", crv="P-384").export_public())
    chance = random.Random(8)
    off_curve = [good | {"y": b64(chance.randrange(PRIME).to_bytes(48))} for _ in range(16)]
    zero, prime, most = (b64(number.to_bytes(48)) for number in (0, PRIME, 2**384 - 1))
    foreign = [
        json.loads(JWK.generate(**kind).export_public())
        for kind in (
            *({"kty": "EC", "crv": "P-256"}, {"kty": "EC", "crv": "P-521"}, {"kty": "EC", "crv": "secp256k1"}),
            *({"kty": "OKP", "crv": "X448"}, {"kty": "OKP", "crv": "X25519"}),
        )
    ]
    odd = [good | {"x": ""}, good | {"x": zero, "y": zero}, good | {"x": prime}, good | {"y": most}, good | {"x": 1}]
    odd += [good | {"crv": "P-256"}, {"kty": "EC"}, "x", [], 1, None, True, good | {"x": good["x"] + "=" * 4}]
    return [*off_curve, *foreign, *odd]


@pytest.mark.case("B08")
def test_an_ephemeral_key_off_the_curve_is_refused(platform, sealed, unchanged):
    replies = set()
    with unchanged():
        for epk in ephemeral_keys():
            head, rest = sealed.split(".", 1)
            header = json.loads(unb64(head)) | {"epk": epk}
            token = f"{b64(json.dumps(header).encode())}.{rest}"
            answer = platform.post([{"token": token}])
            assert_problem(answer, 400, NOT_OPENED)
            replies.add(answer.body)
    assert len(replies) == 1


@pytest.mark.case("B10")
def test_an_ephemeral_key_with_a_private_half_or_of_many_members_is_refused_at_once(
    check_not_opened, platform, inner, ring
):
    receiver = platform.keys.receiver
    private = JWK.generate(kty="EC", crv="P-384")
    changes = (
        {"key_ops": ["deriveKey"] * 10**6},
        {"d": private.export_private(as_dict=True)["d"]},
        {"d": None},
        {"x": None, "jwk": {"kty": "EC", "crv": "P-384"}},
        {"y": [private.export_public(as_dict=True)["y"]]},
    )
    forged = [jwe(inner.encode(), receiver.jwk, kid=receiver.kid, epk=change) for change in changes]
    forged.append(with_header(forged[1], alg="PBES2-HS512+A256KW", p2c=10**9, p2s="AAAA"))
    check_not_opened(*forged[1:])
    for token in forged:
        began = time.process_time()
        with pytest.raises(problems.BadRequest):
            envelope.open_states([token], platform.tenant, ring, time.time(), 30, 10**6)
        assert time.process_time() - began < 0.05


HEADERS = {
    "jwk": {"jwk": {"kty": "oct"}},
    "a header of over 2048 characters": {"spaces": 1600},
    "jku": {"jku": "http://127.0.0.1:9/"},
    "crit": {"crit": []},
    "x5u": {"x5u": "http://127.0.0.1:9/"},
    "x5c": {"x5c": []},
    "b64": {"b64": True},
    "crit that names a known member": {"crit": ["exp"], "exp": 1},
    "a crit of null": {"crit": None},
    "PBES2": {"alg": "PBES2-HS512+A256KW", "p2c": 10**9, "p2s": "AAAA"},
    "a null": {"typ": None},
    "a long typ": {"typ": "x" * 256},
    "a zip of GZ": {"zip": "GZ"},
    "a list for zip": {"zip": ["DEF"]},
    "a long apu": {"apu": b64(b"x" * 129)},
    "an apv in other base64": {"apv": "+/8="},
    "no kid": {"kid": ...},
    "a kid in braces": {"kid": "{" + str(uuid.UUID(int=1)) + "}"},
    "no cty": {"cty": ...},
}


@pytest.mark.case("B07", "B10", "B15")
@pytest.mark.parametrize("header", HEADERS)
def test_a_header_with_more_or_less_than_the_contract_has_is_refused_though_it_decrypts(
    check_not_opened, platform, state, inner, header
):
    receiver = platform.keys.receiver
    forged = jwe(inner.encode(), receiver.jwk, kid=receiver.kid)
    made = {"kid": receiver.kid} | HEADERS[header]
    check_not_opened(
        with_header(forged, **made) if header == "PBES2" else jwe(inner.encode(), receiver.jwk, **made),
    )
    plain = jwe(inner.encode(), receiver.jwk, kid=receiver.kid, typ="JWT", apu=b64(b"x" * 128), spaces=600)
    assert (
        platform.post([{"token": plain}]).status == 204
    )  # the forged tokens differ from this one by their header only


@pytest.mark.case("B08")
def test_an_ephemeral_key_that_is_bad_costs_what_a_good_one_costs(platform, sealed, monkeypatch):
    """Its time is not measured here (that is done by make bench), but what takes it: one agreement, one tag."""
    done = []
    for room, name in ((p384, "agree"), (receiver.jose.jwe, "_tag")):
        plain = getattr(room, name)
        monkeypatch.setattr(room, name, lambda *args, name=name, plain=plain: done.append(name) or plain(*args))
    damaged = [sealed[:-4] + "AAAA", ".".join([sealed.split(".")[0], b64(bytes(56)), *sealed.split(".")[2:]])]
    damaged += [with_header(sealed, epk={}), *(with_header(sealed, epk=epk) for epk in ephemeral_keys() if epk)]
    for token in damaged:
        done.clear()
        assert_problem(platform.post([{"token": token}]), 400, NOT_OPENED)
        assert done == ["agree", "_tag"]


@pytest.mark.case("B08", "B22")
@pytest.mark.parametrize("before", [b"\1", b"\0\0", b"\xff"])
def test_a_coordinate_that_is_longer_than_by_a_sign_is_refused(check_not_opened, platform, inner, before):
    receiver = platform.keys.receiver
    forged = jwe(inner.encode(), receiver.jwk, kid=receiver.kid, epk=LongX(before=before))
    assert len(unb64(json.loads(unb64(forged.split(".")[0]))["epk"]["x"])) == 48 + len(before)
    check_not_opened(forged)


class LongX(dict):
    """Puts what ``before`` says in front of the x of an ephemeral key."""

    def __ror__(self, epk):
        return epk | {"x": b64(self["before"] + unb64(epk["x"]))}


@pytest.mark.slow
@pytest.mark.case("B11")
@pytest.mark.parametrize("megabytes", [1, 5, 10])
@pytest.mark.parametrize("compressed", [True, False])
def test_large_states_come_back_identical(platform, state, megabytes, compressed):
    chance = random.Random(megabytes)
    text = json.dumps({"values": [chance.random() for _ in range(megabytes * 50_000)]})
    state["content"] = text.ljust(megabytes * 1_000_000)
    assert platform.save(state, compressed=compressed).status == 204
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("B12")
def test_a_token_that_inflates_past_the_limit_is_too_large(platform, state, unchanged):
    bomb = tokens.seal("eyJhbGciOiJFUzM4NCJ9." + "A" * 98_700_000, platform.keys.receiver)
    assert len(bomb) < 200_000
    with unchanged():
        assert_problem(platform.post([{"token": bomb}]), 413)
        headers = platform.headers(f"/api/storage/1/states/{platform.tenant}") | {"X-ManyWho-Signature": "x"}
        body = json.dumps([{"token": bomb}]).encode()
        assert_problem(platform.call("POST", f"/api/storage/1/states/{platform.tenant}", body, headers), 401)


@pytest.mark.case("B12")
def test_what_begins_as_no_token_is_not_inflated(check_not_opened, platform, inner):
    bomb = tokens.seal("A" * 98_700_000, platform.keys.receiver)
    tracemalloc.start()
    check_not_opened(bomb)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    check_not_opened(tokens.seal(inner.replace(".", "A" * 2049 + ".", 1), platform.keys.receiver))


@pytest.mark.case("B12")
def test_all_tokens_of_a_request_inflate_to_no_more_than_the_limit_together(
    ring, store, keys, tenant, state, unchanged
):
    served = InProcess(create_app(Settings(max_inflated=100_000), ring, store).test_client(), tenant, keys)
    states = [state | {"id": str(uuid.uuid4()), "content": "x" * 30_000} for _ in range(3)]
    assert served.save(*states[:2]).status == 204
    with unchanged():
        assert_problem(served.save(*states), 413)
    assert served.save(*states, compressed=False).status == 204


@pytest.mark.case("B14")
def test_json_serializations_are_refused_before_any_cryptography(check_not_opened, platform, inner, monkeypatch):
    receiver = platform.keys.receiver
    header = {"alg": "ECDH-ES+A192KW", "enc": "A192CBC-HS384", "kid": receiver.kid, "cty": "JWT"}
    token = jose_jwe.JWE(inner.encode(), protected=json.dumps(header), recipient=receiver.jwk)
    flat = json.loads(token.serialize())
    one = {"header": flat.pop("header"), "encrypted_key": flat.pop("encrypted_key")}
    touched = []
    monkeypatch.setattr("receiver.jose.p384.agree", lambda *_args: touched.append("decrypted"))
    check_not_opened(json.dumps(flat | one), json.dumps(flat | {"recipients": [one]}))
    check_not_opened(json.dumps(flat | {"recipients": [one] * 1000}))
    assert touched == []
    check_not_opened(tokens.seal(inner, receiver))
    assert touched == ["decrypted"]  # so the patch would have told


@pytest.mark.case("B15")
def test_a_damaged_token_is_refused_by_the_same_text_whatever_is_damaged(check_not_opened, sealed):
    chance = random.Random(15)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    parts = sealed.split(".")
    for number, part in enumerate(parts):
        for _ in range(20):
            place = chance.randrange(len(part))
            changed = part[:place] + chance.choice(alphabet.replace(part[place], "")) + part[place + 1 :]
            check_not_opened(".".join([*parts[:number], changed, *parts[number + 1 :]]))
        check_not_opened(".".join([*parts[:number], "", *parts[number + 1 :]]))
        check_not_opened(".".join([*parts[:number], part + "A" * 4, *parts[number + 1 :]]))
        check_not_opened(".".join([*parts[:number], *parts[number + 1 :]]))
    short_tag = b64(unb64(parts[4])[:16])
    check_not_opened(".".join([*parts[:4], short_tag]), f"{sealed}.{parts[4]}", f"{sealed}.", "." * 10**6, "....", "x")


@pytest.mark.case("B15")
@pytest.mark.parametrize(
    "item", [{"token": None}, {"token": 1}, {"token": []}, {"token": ""}, {"token": {}}, {}, None, "x", [], 1]
)
def test_an_item_without_a_token_is_refused(platform, state, unchanged, item):
    good = {"token": tokens.seal_state(state, platform.keys)}
    with unchanged():
        assert_problem(platform.post([good, item]), 400, "item 1")


@pytest.mark.case("B15")
def test_damaged_compression_is_refused(check_not_opened, platform, inner):
    receiver = platform.keys.receiver
    deflater = zlib.compressobj(wbits=-15)
    unfinished = deflater.compress(inner.encode()) + deflater.flush(zlib.Z_SYNC_FLUSH)
    whole = unfinished + deflater.flush()
    assert zlib.decompressobj(-15).decompress(unfinished) == inner.encode()
    for damaged in (unfinished, whole[:-9], whole + b"tail", b"", b"\xff" * 40, zlib.compress(inner.encode())):
        check_not_opened(jwe(b"", receiver.jwk, kid=receiver.kid, plain=damaged))
    assert platform.post([{"token": jwe(b"", receiver.jwk, kid=receiver.kid, plain=whole)}]).status == 204


@pytest.mark.case("B17")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"exp": ...}, "exp"), ({"exp": 0}, "exp"), ({"exp": 301 * 60}, "exp"), ({"exp": None}, "exp")),
        *(({"exp": "1"}, "exp"), ({"exp": True}, "exp"), ({"iss": "ManyWho"}, "iss"), ({"iss": ...}, "iss")),
        *(({"aud": str(uuid.UUID(int=7))}, "aud"), ({"aud": ...}, "aud"), ({"aud": []}, "aud"), ({"aud": None}, "aud")),
        *(({"sub": ...}, "sub"), ({"sub": ""}, "sub"), ({"sub": str(uuid.UUID(int=7))}, "sub"), ({"sub": "x"}, "sub")),
        *(
            ({"nbf": 10**12}, "nbf"),
            ({"nbf": "1"}, "nbf"),
            ({"jti": 1}, "jti"),
            ({"iat": "1"}, "iat"),
        ),
    ],
)
def test_claims_of_the_token_that_are_wrong_are_named(platform, state, unchanged, changes, field):
    if changes.get("exp") == 301 * 60:
        changes = {"exp": time.time() + 301 * 60}
    claims = {name: value for name, value in (tokens.state_claims(state) | changes).items() if value is not ...}
    token = tokens.seal(tokens.sign(claims, platform.keys.platform), platform.keys.receiver)
    with unchanged():
        assert_problem(platform.post([{"token": token}]), 400, f"item 0: {field}")


@pytest.mark.case("B17")
def test_a_token_may_be_valid_for_300_minutes_and_no_longer(platform, state):
    for offset, status in ((300 * 60, 204), (300 * 60 + 28, 204), (300 * 60 + 33, 400), (-28, 204), (-31, 400)):
        claims = tokens.state_claims(state) | {"exp": time.time() + offset}
        token = tokens.seal(tokens.sign(claims, platform.keys.platform), platform.keys.receiver)
        assert platform.post([{"token": token}]).status == status, offset


@pytest.mark.case("B19")
def test_both_keys_of_a_rotation_open_tokens_and_seal_replies(store, settings, keys, foreign_keys, tenant, state):
    served = create_app(settings, ring_of(keys, foreign_keys), store).test_client()
    before, after = InProcess(served, tenant, keys), InProcess(served, tenant, foreign_keys)
    assert before.save(state).status == 204
    assert loaded(after, state["id"]) == state["content"]
    assert after.save(state | {"content": "new"}).status == 204
    assert loaded(before, state["id"]) == "new"


@pytest.mark.case("B19")
@pytest.mark.parametrize("kid", [None, "", str(uuid.UUID(int=3)), 1, []])
def test_a_token_without_the_kid_of_a_receiver_key_is_refused(check_not_opened, platform, inner, kid):
    header = {"alg": "ECDH-ES+A192KW", "enc": "A192CBC-HS384", "cty": "JWT"} | ({} if kid is None else {"kid": kid})
    check_not_opened(encrypted(inner.encode(), platform.keys.receiver.jwk, **header))


@pytest.mark.slow
@pytest.mark.case("B20")
def test_a_thousand_replies_are_what_the_platform_expects_and_never_repeat(platform, state):
    platform.save(state)
    seen = {name: set() for name in ("epk", "iv", "key", "jti", "tag")}
    for _ in range(1000):
        token = platform.load(state["id"]).json["token"]
        assert tokens.open_reply(token, platform.tenant, state["id"], platform.keys) == state["content"]
        outer = jose_jwe.JWE()
        outer.deserialize(token, platform.keys.platform.jwk)
        seen["epk"].add(outer.jose_header["epk"]["x"])
        seen["iv"].add(outer.objects["iv"])
        seen["tag"].add(outer.objects["tag"])
        seen["key"].add(outer.cek)
        seen["jti"].add(json.loads(unb64(outer.plaintext.decode().split(".")[1]))["jti"])
    assert {name: len(values) for name, values in seen.items()} == dict.fromkeys(seen, 1000)


@pytest.mark.case("B20")
def test_a_reply_holds_exactly_the_claims_of_the_contract(platform, state):
    platform.save(state)
    now = time.time()
    outer = jose_jwe.JWE()
    outer.deserialize(platform.load(state["id"]).json["token"], platform.keys.platform.jwk)
    assert {name: value for name, value in outer.jose_header.items() if name != "epk"} == {
        "alg": "ECDH-ES+A192KW",
        "enc": "A192CBC-HS384",
        "cty": "JWT",
        "zip": "DEF",
        "kid": platform.keys.platform.kid,
    }
    head, payload, _ = outer.plaintext.decode().split(".")
    assert json.loads(unb64(head)) == {"alg": "ES384", "kid": platform.keys.receiver.kid, "typ": "JWT"}
    claims = json.loads(unb64(payload))
    assert set(claims) == {"iss", "aud", "sub", "exp", "iat", "nbf", "jti", "content"}
    assert (claims["iss"], claims["aud"], claims["sub"]) == (platform.tenant, "manywho", state["id"])
    assert abs(claims["iat"] - now) <= 2
    assert (claims["exp"] - claims["iat"], claims["iat"] - claims["nbf"]) == (600, 120)


def test_running_out_of_memory_is_no_fault_of_the_token(platform, sealed, monkeypatch):
    def exhausted(*_args):
        raise MemoryError

    monkeypatch.setattr("receiver.jose.p384.agree", exhausted)
    assert_problem(platform.post([{"token": sealed}]), 500, problems.message_of(500))


def test_the_order_of_the_platform_keys_point_is_what_the_curve_says():
    """The prime that the tests above use is that of P-384: a point just made satisfies its equation."""
    point = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
    b = 0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF
    assert (point.y**2 - point.x**3 + 3 * point.x - b) % PRIME == 0


def test_no_skew_is_granted_where_none_is_set(ring, store, keys, tenant, state):
    served = InProcess(create_app(Settings(clock_skew=0.0), ring, store).test_client(), tenant, keys)
    path = f"/api/storage/1/states/{tenant}"
    claims = tokens.state_claims(state) | {"exp": time.time() - 2}
    token = tokens.seal(tokens.sign(claims, keys.platform), keys.receiver)
    assert_problem(served.post([{"token": token}]), 400, "item 0: exp")
    assert served.call("POST", path, b"[]", served.headers(path, exp=time.time() - 2)).status == 401


@pytest.mark.case("B04")
def test_the_platform_key_of_another_tenant_signs_no_state_here(store, settings, keys, foreign_keys, tenant, state):
    other = str(uuid.uuid4())
    app = create_app(settings, ring_of(keys, foreign_keys, tenants=[tenant, other]), store)
    mine = InProcess(app.test_client(), tenant, keys)
    inner = tokens.sign(tokens.state_claims(state), foreign_keys.platform)
    assert_problem(mine.post([{"token": tokens.seal(inner, keys.receiver)}]), 400, NOT_OPENED)
