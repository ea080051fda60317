"""``python -m tests.fuzz.seeds``: writes the first inputs of each target; what fuzzing found since stays beside them."""

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun
from tests.fuzz import forge
from tests.fuzz.targets import NOW, PATH, TENANT

CORPUS = Path(__file__).parent / "corpus"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _state() -> dict:
    run = FlowRun(TENANT, seed=1)
    run.entries, run.values = [], {}
    return run.state() | {"content": '{"a":"ü"}'}


def _claims() -> dict:
    return tokens.state_claims(_state(), NOW) | {"jti": "j"}


def _signature() -> Iterator[bytes]:
    claims = tokens.request_claims(TENANT, PATH, NOW) | {"jti": "j"}
    more = ({}, {"nbf": NOW, "aud": ["x", TENANT]}, {"exp": NOW + 331, "iss": "another", "path": "/"}, {"iss": None})
    for changed in (claims | one for one in more):
        yield b"s" + forge.JWS_HEADER + b"\n" + _json(changed)
    yield b"s" + forge.JWS_HEADER.replace(b"}", b',"typ":"JWT"}') + b"\n" + json.dumps(claims).encode()
    yield b"s" + forge.JWS_HEADER.replace(b"}", b',"x5t":"YQ","x":{"a":[1]}}') + b"\n" + _json(claims | {"nbf": None})
    yield b"s" + forge.JWS_HEADER.replace(b"}", b',"crit":[],"jwk":{}}') + b"\n" + _json(claims)
    yield b"r" + forge.signed(forge.JWS_HEADER, _json(claims))
    yield from (b"r", b"r..", b"ra.b.c", b"r" + b"A" * 40)


def _token() -> Iterator[bytes]:
    inner = forge.signed(forge.JWS_HEADER, _json(_claims()))
    plain = forge.JWE_HEADER.replace(b',"zip":"DEF"', b"")
    other = plain.replace(b"A192KW", b"A256KW").replace(b"A192CBC-HS384", b"A256CBC-HS512")
    yield b"e" + plain + b"\n" + inner
    yield b"e" + other.replace(b"}", b',"apu":"YQ","apv":"Yg","typ":"JWT"}') + b"\n" + inner
    yield b"e" + forge.JWE_HEADER + b"\n" + forge.deflated(inner)
    more = plain.replace(b'"EPK"', forge._POINT.replace(b"}", b',"use":"enc","kid":"x"}')).replace(
        b"JWT", b"application/jwt"
    )
    yield b"e" + more.replace(b"{", b'{"x5t":"YQ",', 1) + b"\n" + inner
    yield b"e" + forge.JWE_HEADER + b"\n" + forge.deflated(b"A." * 10**6)
    for more in ({}, {"exp": NOW - 1000}, {"content": "a" * 2000}):
        yield b"s" + forge.JWS_HEADER + b"\n" + _json(_claims() | more)
    yield b"r" + forge.state_token(inner).encode()
    yield from (b"r", b"r....", b"r" + b"." * 40)


def _bodies() -> Iterator[bytes]:
    id = str(uuid.UUID(int=1)).encode()
    yield from (b"\xef\xbb\xbf[]", b'[{"a":1,"a":2}]')
    yield from (b"[]", b'["%b"]' % id, b'["%b", "%b"]' % (id, id.upper()), b'[{"token":"a.b.c.d.e"}]')
    yield from (b'[{"token": "x", "more": [1, null]}, {"token": ""}]', b"{}", b"[1]", b"[[]]", b"null", b'[{"a":1}]')


def _texts() -> Iterator[bytes]:
    yield from (b'{"a":1,"a":2}', b"[1.0,-0,1e400,1E2,12345678901234567890]", b'"\\ud800\\u0061\\n"', b"[NaN,Infinity]")
    yield from (
        b"[[[[]]]]",
        b'{"a":{"b":[true,false,null]}}',
        b"\xef\xbb\xbf[]",
        b'{"a": "\xc3\xbc"}',
        b"1" * 30,
        b" 1 ",
    )


def _heads() -> Iterator[bytes]:
    host = b" HTTP/1.1\r\nHost: a\r\n"
    kind = b"Content-Type: application/json\r\n"
    yield b"GET " + PATH.encode() + host + b"X-ManyWho-Signature: a.b.c\r\n\r\n"
    yield b"POST /" + host + kind + b"Content-Length: 2\r\n\r\n[]GET /" + host + b"\r\n"
    yield b"POST /" + host + kind + b"Transfer-Encoding: chunked\r\n\r\n1;a=b\r\n[\r\n1\r\n]\r\n0\r\nA: b\r\n\r\n"
    yield b"DELETE http://a/b?c" + host + b"Expect: 100-continue\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"
    yield b"GET / HTTP/1.0\r\nContent-Length: +1\r\nX_A: b\r\n c\r\n\r\n"


def _keys() -> Iterator[bytes]:
    for pair in (forge.PLATFORM, forge.RECEIVER):
        yield _json(pair.jwk)
        yield _json(pair.public | {"alg": "ES384", "use": "sig", "key_ops": ["verify"]})
    yield _json(forge.RECEIVER.jwk | {"alg": "ECDH-ES+A192KW", "key_ops": ["deriveKey", "unwrapKey"]})
    yield _json({"kty": "EC", "crv": "P-384", "kid": str(uuid.UUID(int=1)), "x": "", "y": "AA"})
    jwk = forge.RECEIVER.jwk
    signs = {name: forge.base64url(b"\0" + base64.urlsafe_b64decode(jwk[name] + "==")).decode() for name in "xyd"}
    yield b"\xef\xbb\xbf" + _json({"keys": [jwk | signs | {"key_ops": []}]}) + b"\r\n"
    yield from (
        b"-----BEGIN PRIVATE KEY-----\nMIG2",
        b"'{}'",
        b"{kty:EC}",
        b'{"keys":[{},{}]}',
        b"/run/x.json",
        b'{\\"kty',
    )
    yield base64.b64encode(_json(jwk))


def _urls() -> Iterator[bytes]:
    yield from (
        b"sqlite:///var/receiver.db",
        b"file:///var/lib/receiver",
        b"postgresql://u:p%40@h:1,[::1]:2/d?sslmode=require",
    )
    yield from (
        b"mysql://u:p@h/d?ssl-mode=verify-identity&ssl-ca=/a",
        b"mariadb:///d?unix-socket=/s",
        b"sqlserver://u@h/d?encrypt=strict",
    )
    yield from (
        b"jdbc:postgresql://h/d?user=u&password=p&ssl=true",
        b"jdbc:mysql://u:p@h1,h2/d?useSSL=true&failOverReadOnly=false",
    )
    yield from (
        b"jdbc:mariadb://h:3306/d?sslMode=trust",
        b"jdbc:sqlserver://h:1433;databaseName=d;user={a}}b};encrypt=true",
    )
    yield from (b"jdbc:sqlite:/a", b"postgresql:///d?host=/run/postgresql", b"jdbc:postgresql:d", b"http://a")


def _times() -> Iterator[bytes]:
    yield from (
        b"2026-01-01T10:00:00.1234567+01:00",
        b"2024-02-29T23:59:59Z",
        b"0001-01-01T00:00-18:00",
        b"2026-02-30T00:00Z",
    )
    yield from (b"9999-12-31T23:59:59.999999999-18:00", b"now", "٢026-01-01T00:00Z".encode())


SEEDS = {
    "token": _token,
    "claims": lambda: (
        _json(_claims() | more) for more in ({}, {"parent": "", "expiresAt": None, "nbf": 1.5}, {"id": 1})
    ),
    "signature": _signature,
    "body": _bodies,
    "json": _texts,
    "head": _heads,
    "key": _keys,
    "url": _urls,
    "time": _times,
}


def main() -> None:
    """Write every seed under the digest of what it holds, as libFuzzer names its own."""
    for name, make in SEEDS.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for data in make():
            (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


if __name__ == "__main__":
    main()
