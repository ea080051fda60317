"""Faults in replies: how they are signed, encrypted and what they say."""

import json
import uuid

from cryptography.hazmat.primitives.asymmetric import ec

from receiver import envelope, strictjson
from receiver.jose import jws
from tests.support.faults.declaring import fault


def changing_reply(change):
    """Let ``change`` edit the claims of a reply before they are signed."""
    whole = jws.sign_jws

    def sign(payload, key, kid):
        claims = json.loads(payload)
        change(claims)
        return whole(strictjson.dumps(claims), key, kid)

    envelope.sign_jws = sign


@fault("load.signed")
def signs_replies_with_another_key():
    other = ec.generate_private_key(ec.SECP384R1())
    envelope.sign_jws = lambda payload, key, kid: jws.sign_jws(payload, other, kid)


@fault("load.signing-kid")
def names_another_key_in_replies():
    envelope.sign_jws = lambda payload, key, kid: jws.sign_jws(payload, key, str(uuid.uuid4()))


@fault("load.iss")
def replies_with_another_iss():
    changing_reply(lambda claims: claims.update(iss="receiver"))


@fault("load.aud")
def replies_with_another_aud():
    changing_reply(lambda claims: claims.update(aud=claims["iss"]))


@fault("load.sub")
def replies_with_another_sub():
    changing_reply(lambda claims: claims.update(sub=claims["iss"]))


@fault("load.exp")
def replies_without_exp():
    changing_reply(lambda claims: claims.pop("exp"))


@fault("load.jti")
def replies_with_one_jti_for_ever():
    changing_reply(lambda claims: claims.update(jti="1"))


@fault("load.encrypted", "load.encryption")
def replies_without_encryption():
    envelope.encrypt = lambda jws, *_to: b"".join(jws)


@fault("load.fresh", "load.jti")
def seals_a_state_once_and_keeps_the_reply():
    whole, kept = envelope.seal_state, {}
    envelope.seal_state = lambda state, *how: kept.setdefault((state.id, state.updated_at.text), whole(state, *how))
