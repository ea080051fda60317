"""Stage 1: who calls? Headers and the raw path → Caller (protocol, section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, overload

from marshmallow import ValidationError

from receiver import strictjson
from receiver.encoding import as_ascii, canonical_uuid
from receiver.jose.compact import cause_of
from receiver.jose.jws import verify_jws
from receiver.keys.keyring import AnyKey, Keyring, PlatformKey, ReceiverKey
from receiver.problems import BadRequest, SignatureRefused
from receiver.protocol import ISSUER, PLATFORM_KEY_ID, RECEIVER_KEY_ID, SIGNATURE, SIGNATURE_LIFETIME
from receiver.schemas import fault_of, load_request_claims

_PAST, _AHEAD, _NOT_YET = "exp is past", "exp is too far ahead", "nbf is in the future"
_TIME_FAULTS = {_PAST: "expired", _AHEAD: "too_far_ahead", _NOT_YET: "not_yet"}


class Headers(Protocol):
    """The headers of a request, found by name in any letter case."""

    def get(self, name: str, /) -> str | None:
        """Return the value of the header ``name``, or None."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A proven caller: the two keys it named, its signature's ``jti`` and ``exp`` (seconds since the epoch)."""

    platform_key: PlatformKey
    receiver_key: ReceiverKey
    jti: str | None
    expires: float


def check(headers: Headers, path: str, tenant: str, keyring: Keyring, now: float, skew: float) -> Caller:
    """Return who calls ``path``, the raw path of the request, for ``tenant``, the text in that path.

    ``now`` is in seconds since the epoch, ``skew`` is how many seconds of clock skew to grant. Raises SignatureRefused
    first, for every fault of the signature, so that only the platform learns more; then BadRequest for the key ids.
    """
    claims, signer = _verified_claims(headers.get(SIGNATURE), tenant, keyring)
    _check_claims(claims, path, tenant, now, skew)
    platform_key = _named_key(headers, PLATFORM_KEY_ID, "platform", tenant, keyring)
    receiver_key = _named_key(headers, RECEIVER_KEY_ID, "receiver", tenant, keyring)
    keyring.note(now, signer, platform_key, receiver_key)
    return Caller(platform_key, receiver_key, claims["jti"], claims["exp"])


def _verified_claims(token: str | None, tenant: str, keyring: Keyring) -> tuple[dict[str, Any], PlatformKey]:
    """Return the claims of the signature ``token`` and the key that made it; raises SignatureRefused."""
    if not token:
        raise SignatureRefused("signature: missing", reason="missing")

    def find_key(kid: str) -> PlatformKey | None:
        return keyring.find("platform", kid, tenant)

    try:
        payload, signer = verify_jws(as_ascii(token), find_key)
        return load_request_claims(strictjson.loads(payload)), signer
    except ValidationError as error:
        raise SignatureRefused(f"signature: {fault_of(error)}") from None
    except Exception as error:  # noqa: BLE001 - whatever fails in there makes the one refusal
        raise SignatureRefused(f"signature: {cause_of(error)}", reason="unverified") from None


def _check_claims(claims: Mapping[str, Any], path: str, tenant: str, now: float, skew: float) -> None:
    if claims["iss"] != ISSUER:
        raise SignatureRefused("signature: iss is not manywho", reason="issuer")
    if not is_for_tenant(claims["aud"], tenant):
        raise SignatureRefused("signature: aud does not hold the tenant", reason="audience")
    fault = time_fault(claims, now, skew, SIGNATURE_LIFETIME)
    if fault:
        raise SignatureRefused(f"signature: {fault}", reason=_TIME_FAULTS[fault])
    if claims["path"] != path:
        raise SignatureRefused("signature: path is not the path of this request", reason="path")


def is_for_tenant(audience: list[str], tenant: str) -> bool:
    """Tell whether ``audience`` holds ``tenant`` as it is spelled in the path, or in lower case."""
    return tenant in audience or (canonical_uuid(tenant) or tenant) in audience


def time_fault(claims: Mapping[str, Any], now: float, skew: float, lifetime: float) -> str | None:
    """Return what is wrong with exp and nbf of ``claims`` at ``now``, or None; all times are in seconds.

    Grants ``skew`` on exp, on its upper bound ``now + lifetime``, and on nbf (protocol, section 3.5).
    """
    if claims["exp"] <= now - skew:
        return _PAST
    if claims["exp"] > now + lifetime + skew:
        return _AHEAD
    not_before = claims.get("nbf")
    if not_before is not None and not_before > now + skew:
        return _NOT_YET
    return None


@overload
def _named_key(
    headers: Headers, name: str, role: Literal["platform"], tenant: str, keyring: Keyring
) -> PlatformKey: ...
@overload
def _named_key(
    headers: Headers, name: str, role: Literal["receiver"], tenant: str, keyring: Keyring
) -> ReceiverKey: ...
def _named_key(
    headers: Headers, name: str, role: Literal["platform", "receiver"], tenant: str, keyring: Keyring
) -> AnyKey:
    """Return the key of ``role`` that the header ``name`` names; raises BadRequest."""
    kid = canonical_uuid(headers.get(name))
    if kid is None:
        raise BadRequest(message=f"{name} must be the UUID of a key.", reason="key_id")
    key = keyring.find(role, kid, tenant)
    if key is None:
        raise BadRequest(message=f"{name} names no {role} key that is configured here.", reason="key_id")
    return key
