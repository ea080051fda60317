"""Stages 2 and 4: open and seal the tokens that states travel in (JWE around JWS). No HTTP, no SQL in here.

Protocol, sections 4, 5 and 6; RFC 7516, RFC 7518 sections 4.6 and 5.2.
"""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from marshmallow import ValidationError

from receiver import strictjson
from receiver.encoding import as_ascii, canonical_uuid
from receiver.handover import Handover
from receiver.jose.compact import cause_of
from receiver.jose.jwe import decrypt, encrypt
from receiver.jose.jws import sign_jws, verify_jws
from receiver.keys.keyring import Keyring, PlatformKey, ReceiverKey
from receiver.problems import BadRequest, TooLarge
from receiver.protocol import ISSUER, REPLY_BACKDATED, REPLY_LIFETIME, TOKEN_LIFETIME
from receiver.schemas import fault_of, load_state_claims
from receiver.signature import is_for_tenant, time_fault
from receiver.states import Content, State

_NOT_OPENED = "the token cannot be opened"


def open_states(
    tokens: Iterable[str], tenant: str, keyring: Keyring, now: float, skew: float, max_inflated: int
) -> list[State]:
    """Return the states in ``tokens`` for ``tenant`` (as the path spells it), all of them or none.

    ``now`` and ``skew`` are in seconds; ``max_inflated`` bounds, in bytes, what all compressed tokens together may
    inflate to. Takes each token from ``tokens`` when its turn comes, and keeps no shape of it longer than the next one
    needs.

    Raises BadRequest that names the item, and TooLarge. Before a token's signature holds, every fault has the same
    text, so that it tells nothing about the cryptography.
    """

    def find_receiver_key(kid: str) -> ReceiverKey | None:
        return keyring.find("receiver", kid, tenant)

    def find_platform_key(kid: str) -> PlatformKey | None:
        return keyring.find("platform", kid, tenant)

    states: list[State] = []
    left, upcoming = max_inflated, iter(tokens)
    while True:
        item = f"item {len(states)}"
        try:
            # Fetched inside the call: no name here holds a token while it is opened.
            jws, inflated, receiver_key = decrypt(as_ascii(next(upcoming)), find_receiver_key, left)
            left -= inflated
            payload, platform_key = verify_jws(jws, find_platform_key)
            del jws
            claims = strictjson.loads(payload)
            del payload
        except StopIteration:
            return states
        except TooLarge:
            raise
        except Exception as error:  # noqa: BLE001 - whatever fails in there makes the one refusal
            raise BadRequest(f"{item}: {cause_of(error)}", f"{item}: {_NOT_OPENED}", "token") from None
        keyring.note(now, receiver_key, platform_key)
        states.append(_state_of(claims, item, tenant, now, skew))


def _state_of(raw: object, item: str, tenant: str, now: float, skew: float) -> State:
    """Return the State in the verified claims ``raw``; raises BadRequest that names ``item`` and the field."""
    try:
        claims = load_state_claims(raw)
    except ValidationError as error:
        raise BadRequest(message=f"{item}: {fault_of(error)}", reason="claim") from None
    fault = _claims_fault(claims, tenant) or time_fault(claims, now, skew, TOKEN_LIFETIME)
    if fault:
        raise BadRequest(message=f"{item}: {fault}", reason="claim")
    claims["content"] = Content(claims["content"])
    return State(**{name: claims[name] for name in State.__dataclass_fields__})


def _claims_fault(claims: Mapping[str, Any], tenant: str) -> str | None:
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
    state: State, platform_key: PlatformKey, receiver_key: ReceiverKey, now: float, compression: str | int = "always"
) -> bytes:
    """Return the reply token of ``state``: signed with ``receiver_key``, encrypted to ``platform_key``.

    ``now`` is in seconds since the epoch; ``compression`` is STORAGE_REPLY_COMPRESSION. Claims: protocol,
    section 6.1.
    """
    compressed = state.content.size <= compression if isinstance(compression, int) else compression == "always"
    payload = Handover(strictjson.dumps(_reply_claims(state, now)))
    del state  # its content may be large: each shape of it goes when the next one is there
    jws = sign_jws(payload.take(), receiver_key.handle, receiver_key.kid)
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
