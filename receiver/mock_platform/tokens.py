"""Signs requests, seals states and opens replies as the platform does (protocol, sections 3, 4, 5 and 6)."""

import json
import time
import uuid

from jwcrypto import jwe, jws

from receiver.mock_platform.json_values import JSON, JSONObject
from receiver.mock_platform.keys import KeyPair, StoreKeys

# By default jwcrypto inflates at most 256 KiB of compressed data, but states can be larger.
jwe.default_max_compressed_size = 128 << 20
_MAX_INFLATED = 256 << 20

_REPLY_ALG = ("ECDH-ES+A192KW", "A192CBC-HS384")


class ReplyRefused(Exception):
    """The platform would not accept a reply; the text says why."""


def sign(claims: JSONObject, key: KeyPair) -> str:
    """Return ``claims`` as a compact JWS, signed with the private ``key`` by ES384."""
    token = jws.JWS(_compact(claims))
    protected = json.dumps({"alg": "ES384", "kid": key.kid, "typ": "JWT"})
    token.add_signature(key.jwk, protected=protected)
    text: str = token.serialize(compact=True)
    return text


def _compact(claims: JSONObject) -> bytes:
    """Return ``claims`` as compact JSON in UTF-8; escapes all non-ASCII text if UTF-8 cannot represent it."""
    try:
        return json.dumps(claims, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(claims, separators=(",", ":")).encode()


def request_claims(tenant: str, path: str, now: float | None = None) -> JSONObject:
    """Return the claims that sign a request to ``path`` (raw, from /api on); ``now`` is in Unix seconds."""
    now = int(time.time() if now is None else now)
    return {
        "iss": "manywho",
        "aud": tenant,
        "sub": tenant,
        "iat": now,
        "exp": now + 300,
        "path": path,
        "jti": str(uuid.uuid4()),
    }


def state_claims(state: JSONObject, now: float | None = None) -> JSONObject:
    """Return the claims of a state's token; ``state`` has the claims of protocol, section 5.4, with the content."""
    now = int(time.time() if now is None else now)
    return {
        "iss": "manywho",
        "aud": state["tenant"],
        "sub": state["id"],
        "iat": now,
        "nbf": now,
        "exp": now + 300 * 60,
        "jti": str(uuid.uuid4()),
    } | state


def seal(
    inner: str,
    key: KeyPair,
    alg: str = "ECDH-ES+A192KW",
    enc: str = "A192CBC-HS384",
    compressed: bool = True,
    **members: JSON,
) -> str:
    """Return ``inner``, a compact JWS, encrypted to the public half of ``key``; ``members`` are added to the header."""
    header = {"alg": alg, "enc": enc, "kid": key.kid, "cty": "JWT"} | members
    if compressed:
        header["zip"] = "DEF"
    token = jwe.JWE(inner.encode(), protected=json.dumps(header), recipient=key.jwk)
    text: str = token.serialize(compact=True)
    return text


def seal_state(state: JSONObject, keys: StoreKeys, **how: JSON) -> str:
    """Return the token of ``state`` as a POST carries it; ``how`` as for ``seal``."""
    return seal(sign(state_claims(state), keys.platform), keys.receiver, **how)


def open_reply(token: str, tenant: str, id: str, keys: StoreKeys, now: float | None = None) -> str:
    """Return the content in the ``token`` of a GET, verified as the platform does it; raises ReplyRefused."""
    now = time.time() if now is None else now
    outer = jwe.JWE(algs=list(_REPLY_ALG))
    outer.deserialize(token)
    outer.decrypt(keys.platform.jwk, max_plaintext=_MAX_INFLATED)
    header = outer.jose_header
    _expect(header.get("kid") == keys.platform.kid, "the JWE's kid is not the platform key's")
    _expect((header["alg"], header["enc"]) == _REPLY_ALG, "the JWE has another alg or enc")
    _expect(header.get("cty") == "JWT" and header.get("zip", "DEF") == "DEF", "the JWE has another cty or zip")
    inner = jws.JWS()
    inner.allowed_algs = ["ES384"]
    inner.deserialize(outer.plaintext.decode())
    inner.verify(keys.receiver.jwk)
    _expect(inner.jose_header.get("kid") == keys.receiver.kid, "the JWS's kid is not the receiver key's")
    claims: JSONObject = json.loads(inner.payload)
    _expect(claims["iss"] == tenant and claims["aud"] == "manywho", "iss or aud is wrong")
    _expect(claims["sub"] == id, "sub is not the requested id")
    _expect(
        claims["exp"] - claims["iat"] == 600 and claims["iat"] - claims["nbf"] == 120,
        "the times are wrong",
    )
    _expect(abs(claims["iat"] - now) < 60, "iat is not now")
    _expect(bool(claims["jti"]), "jti is missing")
    content: str = claims["content"]
    return content


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ReplyRefused(otherwise)
