"""Tokens as no library would make them: every part can be chosen."""

import base64
import json

from jwcrypto.jwa import JWA


def b64(data: bytes) -> str:
    """Return ``data`` as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Return the bytes of base64url ``text``."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def as_json(value) -> bytes:
    """Return bytes as they are, everything else as JSON."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def jws(header, payload, jwk=None, alg="ES384") -> str:
    """Return a compact JWS of ``header`` and ``payload`` (dicts or bytes); without ``jwk`` it is unsigned."""
    signed = f"{b64(as_json(header))}.{b64(as_json(payload))}"
    signature = JWA.signing_alg(alg).sign(jwk, signed.encode()) if jwk is not None else b""
    return f"{signed}.{b64(signature)}"


def with_header(token: str, **members) -> str:
    """Return compact ``token`` with ``members`` of its header replaced, added, or removed when None."""
    head, rest = token.split(".", 1)
    header = json.loads(unb64(head)) | members
    return f"{b64(as_json({name: value for name, value in header.items() if value is not None}))}.{rest}"
