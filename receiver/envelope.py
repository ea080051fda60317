"""Rooms 2 and 4: open and seal the tokens that states travel in (JWE around JWS). No HTTP, no SQL in here.

Protocol, sections 4, 5 and 6; RFC 7516, RFC 7518 sections 4.6 and 5.2.
"""

import uuid
from collections.abc import Mapping

from marshmallow import ValidationError

from receiver import strictjson
from receiver.jose.compact import as_ascii, canonical_uuid, told
from receiver.jose.jwe import decrypt, encrypt
from receiver.jose.jws import sign_jws, verify_jws
from receiver.keys.keyring import Key, Keyring
from receiver.problems import BadRequest, TooLarge
from receiver.schemas import fault_of, state_claims
from receiver.signature import ISSUER, is_for_tenant, time_fault
from receiver.states import Content, State

TOKEN_LIFETIME = 300 * 60  # seconds that a state's token may still be valid for
REPLY_LIFETIME = 10 * 60
REPLY_BACKDATED = 2 * 60
_NOT_OPENED = "the token cannot be opened"


def open_states(
    tokens: list[str], tenant: str, keyring: Keyring, now: float, skew: float, max_inflated: int
) -> list[State]:
    """Return the states in ``tokens`` for ``tenant`` (as the path spells it), all of them or none.

    ``now`` and ``skew`` are in seconds; ``max_inflated`` bounds, in bytes, what all compressed tokens together
    may inflate to. Raises BadRequest, naming the item, with one text for every fault before a token's
    signature holds, so that it tells nothing about the cryptography; raises TooLarge.

    Large contents pass through many shapes: of each no more is kept than the next one needs. So ``tokens`` is emptied.
    """
    states, left = [], max_inflated
    opener, signer = keyring.finder("receiver", tenant), keyring.finder("platform", tenant)
    tokens.reverse()
    for index in range(len(tokens)):
        try:
            jws, inflated = decrypt(as_ascii(tokens.pop()), opener, left)
            left -= inflated
            payload = verify_jws(jws, signer)
            del jws
            claims = strictjson.loads(payload)
            del payload
        except TooLarge:
            raise
        except Exception as cause:
            raise BadRequest(f"item {index}: {told(cause)}", f"item {index}: {_NOT_OPENED}", "token") from None
        keyring.note(now, opener.key, signer.key)
        states.append(_state_of(claims, f"item {index}", tenant, now, skew))
    return states


def _state_of(raw: object, item: str, tenant: str, now: float, skew: float) -> State:
    """Return the State that the verified claims ``raw`` tell; raises BadRequest with ``item`` and the field."""
    try:
        claims = state_claims.load(raw)
    except ValidationError as error:
        raise BadRequest(message=f"{item}: {fault_of(error)}", reason="claim") from None
    fault = _claims_fault(claims, tenant) or time_fault(claims, now, skew, TOKEN_LIFETIME)
    if fault:
        raise BadRequest(message=f"{item}: {fault}", reason="claim")
    claims["content"] = Content(claims["content"])
    return State(**{name: claims[name] for name in State.__dataclass_fields__})


def _claims_fault(claims: Mapping, tenant: str) -> str | None:
    if claims["iss"] != ISSUER:
        return "iss is not manywho"
    if not is_for_tenant(claims["aud"], tenant):
        return "aud does not hold the tenant of the path"
    if claims["tenant"] != canonical_uuid(tenant):
        return "tenant is not the tenant of the path"
    if claims["sub"] != claims["id"]:
        return "sub is not the id of the state"
    return None


def seal_state(
    state: State, platform_key: Key, receiver_key: Key, now: float, compression: str | int = "always"
) -> bytes:
    """Return the reply token of ``state``: signed with ``receiver_key``, encrypted to ``platform_key``.

    ``now`` is in seconds since the epoch; ``compression`` is STORAGE_REPLY_COMPRESSION. Claims: protocol,
    section 6.1.
    """
    compressed = compression == "always" or (compression != "never" and state.content.size <= compression)
    payload = [strictjson.dumps(_reply_claims(state, now))]
    del state  # its content may be large: each shape of it goes when the next one is there
    jws = sign_jws(payload.pop(), receiver_key.handle, receiver_key.kid)
    return encrypt(jws, platform_key.handle, platform_key.kid, compressed)


def _reply_claims(state: State, now: float) -> dict[str, object]:
    return {
        "iss": state.tenant,
        "aud": ISSUER,
        "sub": state.id,
        "exp": int(now) + REPLY_LIFETIME,
        "iat": int(now),
        "nbf": int(now) - REPLY_BACKDATED,
        "jti": str(uuid.uuid4()),
        "content": state.content.text,
    }
