"""Faults in which states' tokens are taken."""

import os

from receiver import envelope, schemas
from receiver.jose import compact, jwe, jws
from tests.support.faults.declaring import fault, parts_of, raw_of, trust_without_keys


@fault("tokens.unknown-signer", "tokens.inner-alg-none", "tokens.inner-hmac")
def accepts_states_that_anyone_signed():
    trust_without_keys()
    envelope.verify_jws = lambda token, _find: (parts_of(token)[1], None)


@fault("tokens.not-encrypted")
def accepts_states_that_are_not_encrypted():
    trust_without_keys()
    whole = envelope.decrypt
    envelope.decrypt = lambda token, *rest: (token, 0, None) if token.count(b".") == 2 else whole(token, *rest)


@fault("tokens.not-signed")
def accepts_states_that_are_not_signed():
    trust_without_keys()
    envelope.verify_jws = lambda token, find: (token, None) if token.startswith(b"{") else jws.verify_jws(token, find)


@fault("tokens.exp", "tokens.nbf")
def ignores_the_times_of_a_token():
    envelope.time_fault = lambda *_: None


@fault("tokens.aud", "tenants.token")
def ignores_aud_of_a_token():
    whole = envelope._claims_fault
    envelope._claims_fault = lambda claims, tenant: whole(dict(claims, aud=[tenant], tenant=tenant.lower()), tenant)


@fault("tokens.other-key-management")
def unwraps_by_whatever_the_header_says():
    jwe._WRAPS["ECDH-ES+A128KW"] = 16
    jwe._RULES["alg"] = compact.one_of(*jwe._WRAPS)


@fault("tokens.uncompressed", "content.500k-plain")
def needs_compression():
    whole = envelope.decrypt

    def decrypt(token, find_key, left):
        if b'"zip"' not in raw_of(token.partition(b".")[0]):
            raise compact.TokenFault("no zip")
        return whole(token, find_key, left)

    envelope.decrypt = decrypt


@fault("tokens.unknown-members")
def refuses_unknown_claims():
    schemas.state_claims.unknown = "raise"


@fault("replay.other-body", "replay.other-method", "replay.no-second-effect", "claims.jti-missing")
def does_not_look_at_jti():
    os.environ["STORAGE_REPLAY"] = "off"
