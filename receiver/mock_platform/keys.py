"""The keys of a registered store: two EC P-384 key pairs, each with a UUID as its kid."""

import base64
import json
import uuid
from dataclasses import dataclass

from jwcrypto.common import JWException
from jwcrypto.jwk import JWK

from receiver.mock_platform.json_values import JSONObject

_BYTES = 48  # of a coordinate of P-384


class KeyFault(ValueError):
    """The input is not a key of the contract. The text reveals nothing of it."""


@dataclass(frozen=True)
class KeyPair:
    """One key pair; ``jwk`` is a jwcrypto JWK, which is private if the private half is known."""

    kid: str
    jwk: JWK

    @classmethod
    def generate(cls) -> "KeyPair":
        """Return a new EC P-384 pair."""
        kid = str(uuid.uuid4())
        return cls(kid, JWK.generate(kty="EC", crv="P-384", kid=kid))

    @classmethod
    def of(cls, members: JSONObject) -> "KeyPair":
        """Return the pair in ``members``, a trusted JWK with a kid."""
        return cls(members["kid"], JWK(**members))

    @classmethod
    def read(cls, text: str) -> "KeyPair":
        """Return the pair in ``text``, one JWK or a JWK set of one, as ``parse`` does; raises KeyFault."""
        if "-----BEGIN " in text:
            raise KeyFault("is a PEM file; a JWK is needed")
        try:
            found = json.loads(text.removeprefix("\ufeff"))
        except (ValueError, RecursionError):
            raise KeyFault("is not JSON") from None
        keys = found["keys"] if isinstance(found, dict) and isinstance(found.get("keys"), list) else [found]
        if len(keys) != 1:
            raise KeyFault(f"is a JWK set of {len(keys)} keys; a file must hold one key")
        return cls.parse(keys[0])

    @classmethod
    def parse(cls, members: object) -> "KeyPair":
        """Return the pair in ``members``, an untrusted JWK; raises KeyFault."""
        if not isinstance(members, dict) or (members.get("kty"), members.get("crv")) != ("EC", "P-384"):
            raise KeyFault('must be one JWK, an EC key on P-384 with a UUID as its "kid"')
        try:
            kid = uuid.UUID(members.get("kid"))
            numbers = {name: _number(members[name]) for name in ("x", "y", "d") if name in members}
            known = {name: value for name, value in members.items() if (name, value) != ("key_ops", [])}
            pair = cls.of(known | numbers | {"kid": str(kid)})
            pair.jwk.get_op_key("verify")  # only this checks that the point is on the curve
            return pair
        except (JWException, ValueError, TypeError, AttributeError):
            raise KeyFault('is not a valid EC key on P-384 with a UUID as its "kid"') from None

    def public(self) -> JSONObject:
        """Return the public half as a JWK dict."""
        members: JSONObject = self.jwk.export_public(as_dict=True)
        return members

    def private(self) -> JSONObject:
        """Return the private half as a JWK dict."""
        members: JSONObject = self.jwk.export_private(as_dict=True)
        return members


def _number(text: str) -> str:
    """Return ``text``, a P-384 number in base64url, as 48 bytes; it may lack leading zeros or have one too many."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(data) == _BYTES + 1 and data[0] == 0:
        data = data[1:]
    if not 0 < len(data) <= _BYTES:
        raise ValueError("the number has the wrong size")
    return base64.urlsafe_b64encode(data.rjust(_BYTES, b"\0")).decode("ascii").rstrip("=")


@dataclass(frozen=True)
class StoreKeys:
    """Both pairs of one store. The platform uses the private half of its own pair and the public half of the other."""

    platform: KeyPair
    receiver: KeyPair


def new_store() -> StoreKeys:
    """Return the key pairs of a newly registered store."""
    return StoreKeys(KeyPair.generate(), KeyPair.generate())
