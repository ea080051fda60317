"""Three libraries agree: what jwcrypto and joserfc seal we open, what we seal both open, whatever keys, headers and contents."""

import json
import random
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe as rfc_jwe
from joserfc import jws as rfc_jws
from joserfc.jwk import ECKey

from receiver import envelope
from receiver.jose.p384 import point_of, private_key
from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.forging import b64
from receiver.mock_platform.keys import KeyPair, StoreKeys
from tests.support.joserfc_platform import registry
from tests.support.platform_client import ring_of

NOW = 1_800_000_000
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
WAYS = settings(max_examples=60, deadline=None)


def _pair(number: int, id: uuid.UUID, upper: bool) -> KeyPair:
    """Return the pair of the private ``number``; the smallest and the largest are as good as any."""
    x, y = point_of(private_key(number.to_bytes(48)).public_key())
    kid = str(id).upper() if upper else str(id)
    members = {"x": b64(x), "y": b64(y), "d": b64(number.to_bytes(48))}
    return KeyPair.of({"kty": "EC", "crv": "P-384", "kid": kid} | members)


pairs = st.builds(_pair, st.integers(1, ORDER - 1), st.uuids(), st.booleans())
stores = st.tuples(pairs, pairs).filter(lambda two: two[0].jwk != two[1].jwk).map(lambda two: StoreKeys(*two))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200)
contents = st.one_of(texts, st.builds(lambda text, size: (text * size)[:size], texts, st.integers(0, 300_000)))


@st.composite
def headers(draw) -> dict:
    """Return the members of a JWE's header, but its kid, in any order."""
    members = {
        "alg": draw(st.sampled_from(["ECDH-ES+A192KW", "ECDH-ES+A256KW"])),
        "enc": draw(st.sampled_from(["A192CBC-HS384", "A256CBC-HS512"])),
        "cty": draw(st.sampled_from(["JWT", "jwt", "Jwt"])),
        "kid": None,
    }
    party = st.binary(max_size=128).map(b64)
    optional = {"zip": st.just("DEF"), "apu": party, "apv": party, "typ": st.sampled_from(["JWT", "JOSE"])}
    members |= {name: draw(value) for name, value in optional.items() if draw(st.booleans())}
    return {name: members[name] for name in draw(st.permutations(list(members)))}


def _by_jwcrypto(claims: dict, header: dict, keys: StoreKeys) -> str:
    inner = tokens.sign(claims, keys.platform)
    outer = tokens.jwe.JWE(inner.encode(), protected=json.dumps(header), recipient=keys.receiver.jwk)
    return outer.serialize(compact=True)


def _by_joserfc(claims: dict, header: dict, keys: StoreKeys) -> str:
    head = {"kid": keys.platform.kid, "alg": "ES384"}
    inner = rfc_jws.serialize_compact(head, json.dumps(claims), ECKey.import_key(keys.platform.private()), ["ES384"])
    return rfc_jwe.encrypt_compact(header, inner, ECKey.import_key(keys.receiver.public()), registry=registry())


def _state(content: str) -> dict:
    return FlowRun("11111111-2222-4333-8444-555555555555", seed=3).state() | {"content": content}


@pytest.mark.case("B06", "B19", "D05")
@pytest.mark.parametrize("seal", [_by_jwcrypto, _by_joserfc])
@given(keys=stores, header=headers(), content=contents, id=st.uuids())
@WAYS
def test_what_another_library_seals_we_open(seal, keys, header, content, id):
    state = _state(content) | {"id": str(id)}
    claims = tokens.state_claims(state, NOW)
    token = seal(claims, header | {"kid": keys.receiver.kid}, keys)
    (opened,) = envelope.open_states([token], state["tenant"], ring_of(keys), NOW, 0, 1 << 23)
    assert (opened.content.text, opened.id, opened.updated_at.text) == (content, str(id), state["updatedAt"])


def _to_jwcrypto(token: str, keys: StoreKeys, state: dict) -> str:
    return tokens.open_reply(token, state["tenant"], state["id"], keys, NOW)


def _to_joserfc(token: str, keys: StoreKeys, state: dict) -> str:
    outer = rfc_jwe.decrypt_compact(token, ECKey.import_key(keys.platform.private()), registry=registry())
    signer = ECKey.import_key(keys.receiver.public())
    claims = json.loads(rfc_jws.deserialize_compact(outer.plaintext, signer, ["ES384"]).payload)
    assert (claims["iss"], claims["sub"]) == (state["tenant"], state["id"])
    return claims["content"]


@pytest.mark.case("B20", "D05")
@pytest.mark.parametrize("opens", [_to_jwcrypto, _to_joserfc])
@given(keys=stores, content=contents)
@WAYS
def test_what_we_seal_another_library_opens(opens, keys, content):
    ring, state = ring_of(keys), _state(content)
    token = _by_jwcrypto(tokens.state_claims(state, NOW), _HEADER | {"kid": keys.receiver.kid}, keys)
    (opened,) = envelope.open_states([token], state["tenant"], ring, NOW, 0, 1 << 23)
    ours = (ring.find(role, getattr(keys, role).kid, state["tenant"]) for role in ("platform", "receiver"))
    assert opens(envelope.seal_state(opened, *ours, NOW).decode(), keys, state) == content


_HEADER = {"alg": "ECDH-ES+A192KW", "enc": "A192CBC-HS384", "cty": "JWT"}


@pytest.mark.case("B11")
@pytest.mark.parametrize("seal", [_by_jwcrypto, _by_joserfc])
def test_a_content_that_does_not_compress_is_the_same_too(seal, keys):
    content = b64(random.Random(4).randbytes(400_000))
    token = seal(tokens.state_claims(_state(content), NOW), _HEADER | {"kid": keys.receiver.kid, "zip": "DEF"}, keys)
    (opened,) = envelope.open_states([token], _state("")["tenant"], ring_of(keys), NOW, 0, 1 << 23)
    assert opened.content.text == content
