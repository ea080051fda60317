"""Bodies that try each bound: all that a signed caller can make the receiver do with one request."""

import json
import os
import zlib
from collections.abc import Iterator

from receiver.mock_platform import forging, tokens
from receiver.mock_platform.keys import StoreKeys

_MEGABYTES_64 = 64 << 20


def bodies(state: dict, keys: StoreKeys) -> Iterator[tuple[str, bytes]]:
    """Yield what is tried, and the body of the POST that tries it; ``state`` is one that would be saved."""
    good = tokens.seal_state(state, keys)
    bad = forging.with_header(good, epk={})
    yield "a state of 5 KB, saved", _of([good])
    yield "1000 good tokens of 5 KB, a key of its own each; the last is bad", _of([*_many(999, state, keys), bad])
    yield "1000 times the same good token, the last is bad", _of([good] * 999 + [bad])
    yield "1001 tokens", _of([good] * 1001)
    head = "eyJhbGciOiJFUzM4NCJ9."
    yield "a token that inflates to the limit", _of([_inflating(head.encode() + b"A" * (_MEGABYTES_64 - 64), keys)])
    yield "one that would inflate to 1 GB", _of([_inflating(_bomb(1 << 30), keys, deflated=True)])
    yield "64 tokens that inflate to 1 MB each, the first is no JWS", _of([_inflating(b"." + b"A" * 10**6, keys)] * 64)
    noise = os.urandom(12 << 20)
    yield "12 MB that do not compress, and are no JWS", _of([_inflating(b"." + noise, keys)])
    stored = b"\0\0\0\xff\xff" * 100_000  # RFC 1951: blocks without a byte in them
    yield "a deflated text of 100,000 empty blocks", _of([_inflating(stored, keys, deflated=True)])
    yield "15,000 numbers", b"[" + b"1," * 15_000 + b"1]"
    yield "15,000 members, spaced", _json({str(number): 1 for number in range(15_000)})
    yield "10⁶ members", _json({str(number): 1 for number in range(10**6)}, (",", ":"))
    yield "a number of 30 million digits", b"[" + b"1" * 30_000_000 + b"]"
    yield "30 million brackets", b"[" * 30_000_000
    yield "30 MB of escapes", b'["' + b"\\u0061" * 5_000_000 + b'"]'
    deep = json.dumps(state)[:-1].encode() + b', "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    inner = forging.jws({"alg": "ES384", "kid": keys.platform.kid}, deep, keys.platform.jwk)
    yield "claims that are 10,000 deep", _of([tokens.seal(inner, keys.receiver)])


def _of(found: list[str]) -> bytes:
    return _json([{"token": token} for token in found], (",", ":"))


def _json(value: object, separators: tuple[str, str] | None = None) -> bytes:
    return json.dumps(value, separators=separators).encode()


def _many(count: int, state: dict, keys: StoreKeys) -> list[str]:
    return [tokens.seal_state(state, keys) for _ in range(count)]


def _inflating(plain: bytes, keys: StoreKeys, deflated: bool = False) -> str:
    """Return a token that decrypts to ``plain`` once inflated, or before if it is ``deflated``; nobody has signed it."""
    if not deflated:
        return forging.jwe(plain, keys.receiver.jwk, kid=keys.receiver.kid)
    return forging.jwe(b"", keys.receiver.jwk, kid=keys.receiver.kid, plain=plain)


def _bomb(size: int) -> bytes:
    deflater = zlib.compressobj(9, wbits=-15)
    return b"".join(
        [deflater.compress(b"e."), *(deflater.compress(b"A" * 2**20) for _ in range(size >> 20)), deflater.flush()]
    )
