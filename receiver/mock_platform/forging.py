"""Makes tokens that no library would make: every part can be chosen. For the tests and the conformance suite."""

import base64
import json
import zlib

from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from receiver.mock_platform.json_values import JSON, JSONObject


def b64(data: bytes) -> str:
    """Return ``data`` as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Return the bytes of base64url ``text``."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def as_json(value: object) -> bytes:
    """Return bytes unchanged, and anything else as JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def jws(header: object, payload: object, jwk: JWK | None = None, alg: str = "ES384") -> str:
    """Return a compact JWS of ``header`` and ``payload`` (bytes or JSON values), unsigned without ``jwk``."""
    signed = f"{b64(as_json(header))}.{b64(as_json(payload))}"
    signature = JWA.signing_alg(alg).sign(jwk, signed.encode()) if jwk is not None else b""
    return f"{signed}.{b64(signature)}"


def with_header(token: str, **members: JSON) -> str:
    """Return the compact ``token`` with ``members`` of its header replaced or added, or removed if None."""
    head, rest = token.split(".", 1)
    header = json.loads(unb64(head)) | members
    return f"{b64(as_json({name: value for name, value in header.items() if value is not None}))}.{rest}"


def jwe(
    inner: bytes,
    jwk: JWK,
    /,
    alg: str = "ECDH-ES+A192KW",
    enc: str = "A192CBC-HS384",
    epk: JSONObject | None = None,
    plain: bytes | None = None,
    spaces: int = 0,
    **header: JSON,
) -> str:
    """Return a compact JWE that decrypts whatever its header says: the header is edited before it is authenticated.

    ``epk`` replaces members of the ephemeral key that is actually used, ``plain`` is encrypted instead of the deflated
    ``inner``, and ``spaces`` is the number of spaces after the header's JSON. ``...`` removes a header member.
    """
    members: JSONObject = {"alg": alg, "enc": enc, "cty": "JWT", "zip": "DEF"} | header
    bits = {"A192CBC-HS384": 384, "A256CBC-HS512": 512}[enc]
    derived = {name: value for name, value in members.items() if name in ("alg", "enc", "apu", "apv")}
    wrapped = JWA.keymgmt_alg(alg).wrap(jwk, bits, None, derived)
    members["epk"] = wrapped["header"]["epk"] | (epk or {})
    head = b64(as_json({name: value for name, value in members.items() if value is not ...}) + b" " * spaces)
    deflater = zlib.compressobj(wbits=-15)
    plain = deflater.compress(inner) + deflater.flush() if plain is None else plain
    parts = JWA.encryption_alg(enc).encrypt(wrapped["cek"], head.encode(), plain)
    return ".".join([head, *map(b64, [wrapped["ek"], *parts])])
