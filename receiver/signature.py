"""Room 1: who calls? Headers and the raw path → Caller (protocol, section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass

from marshmallow import ValidationError

from receiver import strictjson
from receiver.jose.compact import as_ascii, canonical_uuid, told
from receiver.jose.jws import verify_jws
from receiver.keys.keyring import Finder, Key, Keyring
from receiver.problems import BadRequest, SignatureRefused
from receiver.schemas import fault_of, request_claims

SIGNATURE = "X-ManyWho-Signature"
PLATFORM_KEY_ID = "X-ManyWho-Platform-Key-ID"
RECEIVER_KEY_ID = "X-ManyWho-Receiver-Key-ID"
ISSUER = "manywho"
LIFETIME = 5 * 60  # seconds that a signature may still be valid for
_PAST, _AHEAD, _NOT_YET = "exp is past", "exp is too far ahead", "nbf is in the future"
_TIME_FAULTS = {_PAST: "expired", _AHEAD: "too_far_ahead", _NOT_YET: "not_yet"}


@dataclass(frozen=True, slots=True)
class Caller:
    """A proven caller: the two keys it named, its signature's ``jti`` and ``exp`` (seconds since the epoch)."""

    platform_key: Key
    receiver_key: Key
    jti: str | None
    expires: float


def check(headers: Mapping[str, str], path: str, tenant: str, keyring: Keyring, now: float, skew: float) -> Caller:
    """Return who calls ``path``, the raw path of the request, for ``tenant``, the text in that path.

    ``now`` is in seconds since the epoch, ``skew`` the seconds of clock skew to grant. Raises SignatureRefused
    first, for every fault of the signature, so that nobody else learns anything; then BadRequest for the key ids.
    """
    signer = keyring.finder("platform", tenant)
    claims = _verified_claims(headers.get(SIGNATURE), signer)
    _check_claims(claims, path, tenant, now, skew)
    platform_key = _named_key(headers, PLATFORM_KEY_ID, "platform", tenant, keyring)
    receiver_key = _named_key(headers, RECEIVER_KEY_ID, "receiver", tenant, keyring)
    keyring.note(now, signer.key, platform_key, receiver_key)
    return Caller(platform_key, receiver_key, claims["jti"], claims["exp"])


def _verified_claims(token: str | None, signer: Finder) -> dict:
    if not token:
        raise SignatureRefused("signature: missing", reason="missing")
    try:
        return request_claims.load(strictjson.loads(verify_jws(as_ascii(token), signer)))
    except ValidationError as error:
        raise SignatureRefused(f"signature: {fault_of(error)}") from None
    except Exception as cause:
        raise SignatureRefused(f"signature: {told(cause)}", reason="unverified") from None


def _check_claims(claims: Mapping, path: str, tenant: str, now: float, skew: float) -> None:
    if claims["iss"] != ISSUER:
        raise SignatureRefused("signature: iss is not manywho", reason="issuer")
    if not is_for_tenant(claims["aud"], tenant):
        raise SignatureRefused("signature: aud does not hold the tenant", reason="audience")
    fault = time_fault(claims, now, skew, LIFETIME)
    if fault:
        raise SignatureRefused(f"signature: {fault}", reason=_TIME_FAULTS[fault])
    if claims["path"] != path:
        raise SignatureRefused("signature: path is not the path of this request", reason="path")


def is_for_tenant(audience: list[str], tenant: str) -> bool:
    """Tell whether ``audience`` holds ``tenant`` as it is spelled in the path, or in its usual lower case."""
    return tenant in audience or (canonical_uuid(tenant) or tenant) in audience


def time_fault(claims: Mapping, now: float, skew: float, lifetime: float) -> str | None:
    """Return what is wrong with exp and nbf of ``claims`` at ``now``, or None; all in seconds.

    ``skew`` is granted on exp, on its upper bound ``now + lifetime``, and on nbf (protocol, section 3.5).
    """
    if claims["exp"] <= now - skew:
        return _PAST
    if claims["exp"] > now + lifetime + skew:
        return _AHEAD
    not_before = claims.get("nbf")
    if not_before is not None and not_before > now + skew:
        return _NOT_YET
    return None


def _named_key(headers: Mapping[str, str], header: str, role: str, tenant: str, keyring: Keyring) -> Key:
    kid = canonical_uuid(headers.get(header))
    if kid is None:
        raise BadRequest(message=f"{header} must be the UUID of a key.", reason="key_id")
    key = keyring.find(role, kid, tenant)
    if key is None:
        raise BadRequest(message=f"{header} names no {role} key that is configured here.", reason="key_id")
    return key
