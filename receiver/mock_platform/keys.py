"""What the platform makes when a store is registered: two EC P-384 key pairs with a UUID kid each."""

import uuid
from dataclasses import dataclass

from jwcrypto.jwk import JWK


@dataclass(frozen=True)
class KeyPair:
    """One key pair; ``jwk`` is a jwcrypto JWK, private where this side holds the private half."""

    kid: str
    jwk: JWK

    @classmethod
    def generate(cls) -> "KeyPair":
        """Return a new EC P-384 pair."""
        kid = str(uuid.uuid4())
        return cls(kid, JWK.generate(kty="EC", crv="P-384", kid=kid))

    @classmethod
    def of(cls, members: dict) -> "KeyPair":
        """Return the pair in ``members``, a JWK as a dict with a kid."""
        return cls(members["kid"], JWK(**members))

    def public(self) -> dict:
        """Return the public half as a JWK dict."""
        return self.jwk.export_public(as_dict=True)

    def private(self) -> dict:
        """Return the private half as a JWK dict."""
        return self.jwk.export_private(as_dict=True)


@dataclass(frozen=True)
class StoreKeys:
    """Both pairs of one store. The platform uses the private half of its own and the public one of the receiver's."""

    platform: KeyPair
    receiver: KeyPair


def new_store() -> StoreKeys:
    """Return the key pairs of a newly registered store."""
    return StoreKeys(KeyPair.generate(), KeyPair.generate())
