"""A platform client written with joserfc."""

import json
import time
import uuid

from joserfc import jwe, jws
from joserfc.jwk import ECKey

BIG = 256 << 20
ALGORITHMS = ["ECDH-ES+A192KW", "ECDH-ES+A256KW", "A192CBC-HS384", "A256CBC-HS512", "DEF"]


class Registry(jwe.JWERegistry):
    """joserfc's registry without its small limits: a state may have tens of megabytes."""

    max_ciphertext_length = BIG


def registry():
    return Registry(algorithms=ALGORITHMS)


def sign(claims, keys):
    header = {"alg": "ES384", "kid": keys.platform.kid}
    text = json.dumps(claims, ensure_ascii=False, separators=(",", ":"))
    return jws.serialize_compact(header, text, ECKey.import_key(keys.platform.private()), algorithms=["ES384"])


def headers(client, keys, path):
    now = int(time.time())
    claims = {"iss": "manywho", "aud": client.tenant, "sub": client.tenant, "exp": now + 299, "path": path}
    return {
        "X-ManyWho-Platform-Key-ID": keys.platform.kid,
        "X-ManyWho-Receiver-Key-ID": keys.receiver.kid,
        "X-ManyWho-Signature": sign(claims | {"iat": now, "jti": uuid.uuid4().hex}, keys),
    }


def load(client, keys, id):
    path = f"/api/storage/1/states/{client.tenant}/{id}"
    answer = client.call("GET", path, headers=headers(client, keys, path))
    assert answer.status == 200
    outer = jwe.decrypt_compact(answer.json["token"], ECKey.import_key(keys.platform.private()), registry=registry())
    assert outer.headers()["alg"] == "ECDH-ES+A192KW"
    inner = jws.deserialize_compact(outer.plaintext, ECKey.import_key(keys.receiver.public()), algorithms=["ES384"])
    claims = json.loads(inner.payload)
    assert (claims["iss"], claims["aud"], claims["sub"]) == (client.tenant, "manywho", id)
    assert (claims["exp"] - claims["iat"], claims["iat"] - claims["nbf"]) == (600, 120)
    assert abs(claims["iat"] - time.time()) < 60
    return claims["content"], claims["jti"], outer.headers()["epk"]["x"]
