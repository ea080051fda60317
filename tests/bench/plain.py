"""The plain server: the receiver that one would write in an afternoon. Flask, jwcrypto as documented, sqlite3.

One transaction per request, the connection too; keys are parsed once. No record of ``jti``, no limits, no audit of headers.
"""

import json
import os
import sqlite3
import sys
import time
import uuid

from flask import Flask, Response, jsonify, request
from jwcrypto import jwe, jwk, jws

from tests.bench.bare import Bare

jwe.default_max_compressed_size = 128 << 20  # larger states than jwcrypto expects
_MOST = 256 << 20
_UPSERT = """
    insert into states (tenant, id, updated_at, content) values (:tenant, :id, :updated_at, :content)
    on conflict (tenant, id) do update set updated_at = excluded.updated_at, content = excluded.content
     where excluded.updated_at >= states.updated_at
"""

app = Flask("plain")
platform_key = jwk.JWK.from_json(os.environ["PLATFORM_KEY"])
receiver_key = jwk.JWK.from_json(os.environ["RECEIVER_KEY"])


def database() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ["BENCH_DATABASE"], timeout=30)
    connection.execute("pragma synchronous = full")
    return connection


def prepare() -> None:
    connection = database()
    connection.execute("pragma journal_mode = wal")
    connection.execute(
        "create table if not exists states"
        " (tenant text, id text, updated_at text, content text, primary key (tenant, id))"
    )
    connection.close()


def opened(text: str) -> dict:
    """Return the claims of the JWS ``text`` of the platform."""
    token = jws.JWS()
    token.allowed_algs = ["ES384"]
    token.deserialize(text, platform_key)
    claims = json.loads(token.payload)
    if claims["iss"] != "manywho" or claims["exp"] < time.time():
        raise ValueError("not a token of now")
    return claims


@app.before_request
def check_signature():
    """Refuse whoever did not sign this path for this tenant."""
    if request.path.endswith("/health"):
        return None
    try:
        claims = opened(request.headers["X-ManyWho-Signature"])
    except Exception:
        return Response(status=401)
    if claims["path"] != request.path or claims["aud"] != request.view_args["tenant"]:
        return Response(status=401)
    return None


@app.get("/api/storage/1/health")
def health():
    return jsonify(status="ok")


@app.get("/api/storage/1/states/<tenant>/<id>")
def load(tenant, id):
    connection = database()
    row = connection.execute("select content from states where tenant = ? and id = ?", (tenant, id)).fetchone()
    connection.close()
    if row is None:
        return Response(status=404)
    now = int(time.time())
    claims = {"iss": tenant, "aud": "manywho", "sub": id, "iat": now, "nbf": now - 120, "exp": now + 600}
    signed = jws.JWS(json.dumps(claims | {"jti": str(uuid.uuid4()), "content": row[0]}).encode())
    protected = {"alg": "ES384", "kid": receiver_key["kid"], "typ": "JWT"}
    signed.add_signature(receiver_key, protected=json.dumps(protected))
    header = {"alg": "ECDH-ES+A192KW", "enc": "A192CBC-HS384", "cty": "JWT", "zip": "DEF", "kid": platform_key["kid"]}
    sealed = jwe.JWE(signed.serialize(compact=True).encode(), json.dumps(header), recipient=platform_key)
    return jsonify(token=sealed.serialize(compact=True))


@app.post("/api/storage/1/states/<tenant>")
def save(tenant):
    rows = []
    for item in request.get_json():
        token = jwe.JWE(algs=["ECDH-ES+A192KW", "ECDH-ES+A256KW", "A192CBC-HS384", "A256CBC-HS512"])
        token.deserialize(item["token"])
        token.decrypt(receiver_key, max_plaintext=_MOST)
        claims = opened(token.plaintext.decode())
        if claims["aud"] != tenant or claims["tenant"] != tenant:
            return Response(status=400)
        columns = {"id": claims["id"], "updated_at": claims["updatedAt"], "content": claims["content"]}
        rows.append({"tenant": tenant} | columns)
    connection = database()
    with connection:
        connection.executemany(_UPSERT, rows)
    connection.close()
    return Response(status=204)


@app.delete("/api/storage/1/states/<tenant>")
def delete(tenant):
    connection = database()
    with connection:
        ids = [(tenant, id) for id in request.get_json()]
        connection.executemany("delete from states where tenant = ? and id = ?", ids)
    connection.close()
    return Response(status=204)


if __name__ == "__main__":
    prepare()
    Bare(lambda: app, *sys.argv[1:]).run()
