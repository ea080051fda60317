"""Encryption: compact JWE as this contract has it (RFC 7516; RFC 7518 sections 4.6 and 5.2; RFC 3394).

ECDH-ES agrees on a key that wraps a fresh one; that one encrypts by AES-CBC and authenticates by HMAC. The primitives
are the cryptography library's. This module decides what goes into them, and in which order; the tests compare it with
two other libraries in both directions.
"""

import hmac
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, NotRequired, Protocol, TypedDict, TypeVar, cast

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from isal import isal_zlib

from receiver import strictjson
from receiver.encoding import as_ascii, decode_base64url, encode_base64url
from receiver.jose import p384
from receiver.jose.compact import (
    MAX_HEADER,
    Rule,
    TokenFault,
    decode_number,
    is_kid,
    is_label,
    one_of,
    parts_of,
    read_header,
)
from receiver.problems import TooLarge

_BLOCK = 16  # bytes of AES
_WRAP_EXTRA = 8  # bytes by which a wrapped key is longer (RFC 3394)
_LARGE = 1 << 20  # bytes from which pieces are compressed one by one: in one go is quicker, but copies them
_COMPRESSION = 1  # of 0 to 3; the higher ones take longer and save a hundredth (make bench)


@dataclass(frozen=True)
class _Encryption:
    """An ``enc``: bytes of each half of its key (RFC 7518 sections 5.2.4 and 5.2.5) and of its tag, and the hash."""

    half: int
    hash: str


_ENCRYPTIONS = {"A192CBC-HS384": _Encryption(24, "sha384"), "A256CBC-HS512": _Encryption(32, "sha512")}
_WRAPS = {"ECDH-ES+A192KW": 24, "ECDH-ES+A256KW": 32}  # bytes of the key that wraps


_JWT = ("jwt", "application/jwt")  # RFC 7515 section 4.1.10: the same media type


def _is_party_info(value: object) -> bool:
    return len(decode_base64url(as_ascii(value))) <= 128


_RULES: dict[str, Rule] = {
    "alg": one_of(*_WRAPS),
    "enc": one_of(*_ENCRYPTIONS),
    "kid": is_kid,
    "cty": lambda value: isinstance(value, str) and value.lower() in _JWT,
    "typ": is_label,
    "zip": one_of("DEF"),
    "epk": lambda value: True,  # judged where it is used, because a bad one must take as long as a good one
    "apu": _is_party_info,
    "apv": _is_party_info,
}


class _Header(TypedDict):
    """The members of a header that satisfied _RULES."""

    alg: str
    enc: str
    kid: str
    cty: str
    epk: object
    zip: NotRequired[str]
    typ: NotRequired[str]
    apu: NotRequired[str]
    apv: NotRequired[str]


class DecryptingKey(Protocol):
    """What a token is decrypted with."""

    @property
    def handle(self) -> p384.PrivateKey:
        """The private key."""


Key = TypeVar("Key", bound=DecryptingKey)


class Decrypted(NamedTuple, Generic[Key]):
    """What was inside a token, how many bytes of it inflating made (0 if it was not compressed), and the key."""

    plain: bytes
    inflated: int
    key: Key


def decrypt(token: bytes, find_key: Callable[[str], Key | None], max_inflated: int) -> Decrypted[Key]:
    """Return what is inside ``token``, a compact JWE, and the key that opened it.

    ``find_key`` takes the header's ``kid`` and returns the key that opens the token, or None; ``max_inflated`` is in
    bytes. Raises TokenFault, EncodingFault, TooLarge beyond ``max_inflated``, and what a library raises.
    """
    where, wrapped, iv, ciphertext, tag = parts_of(token, 5)
    head = token[slice(*where)]
    # The rules have checked the type of each member.
    header = cast("_Header", read_header(head, _RULES, ("alg", "enc", "kid", "cty", "epk")))
    half = _ENCRYPTIONS[header["enc"]].half
    raw = _Raw(
        head,
        decode_base64url(token, *wrapped, size=2 * half + _WRAP_EXTRA),
        decode_base64url(token, *iv, size=_BLOCK),
        decode_base64url(token, *ciphertext),
        decode_base64url(token, *tag, size=half),
    )
    if not raw.ciphertext or len(raw.ciphertext) % _BLOCK:
        raise TokenFault("the ciphertext is not whole blocks")
    key = find_key(header["kid"])
    if key is None:
        raise TokenFault("the kid names no receiver key of this tenant")
    del token  # from here on every large value goes as soon as the next one is there
    plain = _open(key.handle, header, raw)
    if "zip" not in header:
        return Decrypted(bytes(plain), 0, key)
    del raw
    inflated = _inflate(plain, max_inflated)
    return Decrypted(inflated, len(inflated), key)


class _Raw(NamedTuple):
    """The parts of a token: the header as it was sent, which the tag covers, and what the others encode."""

    head: bytes
    wrapped: bytearray
    iv: bytearray
    ciphertext: bytearray
    tag: bytearray


def _open(key: p384.PrivateKey, header: _Header, raw: _Raw) -> memoryview:
    """Return the plaintext; raises TokenFault, or what a library raises, if anything differs from what was sealed."""
    encryption = _ENCRYPTIONS[header["enc"]]
    cek = _content_key(key, header, bytes(raw.wrapped))
    if not hmac.compare_digest(_tag(encryption, cek, raw.head, raw.iv, raw.ciphertext), raw.tag):
        raise TokenFault("it does not decrypt")
    decryptor = Cipher(AES(cek[encryption.half :]), CBC(bytes(raw.iv))).decryptor()
    padded = decryptor.update(raw.ciphertext)
    count = padded[-1]  # PKCS #7: as many bytes of that value; the tag has proven it, so it is no oracle
    if not 1 <= count <= _BLOCK or padded[-count:] != bytes([count]) * count:
        raise TokenFault("the padding is none")
    return memoryview(padded)[:-count]


def _content_key(key: p384.PrivateKey, header: _Header, wrapped: bytes) -> bytes:
    """Return the content key; where there is none a random one, so that the tag fails a little later.

    So a bad ephemeral key, a key that does not unwrap and a wrong tag take the same time, that of one agreement, and
    nobody can tell them apart (RFC 7516 section 11.5).
    """
    public = _ephemeral_key(header["epk"])
    secret = p384.agree(key, public or key.public_key())
    try:
        cek = aes_key_unwrap(_wrapping_key(header["alg"], secret, header.get("apu"), header.get("apv")), wrapped)
    except InvalidUnwrap:
        public = None
    return cek if public else os.urandom(len(wrapped) - _WRAP_EXTRA)


def _ephemeral_key(epk: object) -> p384.PublicKey | None:
    """Return the public key in ``epk`` (RFC 7518 section 4.6.1.1); None if it is bad or has a private half.

    Ignores its other members (protocol, section 4.3).
    """
    if not isinstance(epk, dict) or "d" in epk:
        return None
    if epk.get("kty") != "EC" or epk.get("crv") != "P-384":
        return None
    try:
        x, y = (decode_number(epk.get(name), p384.COORDINATE_BYTES) for name in ("x", "y"))
        return p384.public_key(x, y)
    except ValueError:  # TokenFault, EncodingFault, and what a point off the curve makes
        return None


def _wrapping_key(alg: str, secret: bytes, apu: str | None = None, apv: str | None = None) -> bytes:
    """Return the key that wraps the content's (RFC 7518 section 4.6.2: Concat KDF, NIST SP 800-56A)."""
    size = _WRAPS[alg]
    parties = (b"" if party is None else decode_base64url(as_ascii(party)) for party in (apu, apv))
    info = b"".join(len(field).to_bytes(4) + field for field in (alg.encode("ascii"), *parties))
    info += (8 * size).to_bytes(4)
    return ConcatKDFHash(SHA256(), size, info).derive(secret)


def _tag(
    encryption: _Encryption, cek: bytes, head: bytes, iv: bytes | bytearray, ciphertext: bytes | bytearray
) -> bytes:
    """Return the authentication tag (RFC 7518 section 5.2.2.1 step 5)."""
    mac = hmac.new(cek[: encryption.half], head, encryption.hash)
    mac.update(iv)
    mac.update(ciphertext)
    mac.update(struct.pack(">Q", 8 * len(head)))
    return mac.digest()[: encryption.half]


def _inflate(data: memoryview, limit: int) -> bytes:
    """Return ``data`` inflated (RFC 1951); raises TooLarge beyond ``limit`` bytes, TokenFault if it is damaged.

    Inflates the beginning first: if that does not hold a token's whole header, the rest is not inflated at all.
    """
    inflater, first = (isal_zlib.decompressobj(-isal_zlib.MAX_WBITS) for _ in range(2))
    try:
        if b"." not in first.decompress(data[: 2 * MAX_HEADER], MAX_HEADER + 1):
            raise TokenFault("what is inside is no compact token")
        inflated: bytes = inflater.decompress(data, limit + 1)
    except isal_zlib.error:  # type: ignore[misc]  # isal's stubs declare the class as an instance
        raise TokenFault("the compressed data is damaged") from None
    if len(inflated) > limit:
        raise TooLarge("a token inflates past STORAGE_MAX_INFLATED")
    if not inflater.eof or inflater.unused_data:
        raise TokenFault("the compressed data is damaged")
    return inflated


_ALG, _ENC = "ECDH-ES+A192KW", "A192CBC-HS384"  # of replies


def encrypt(plain: Iterable[bytes], key: p384.PublicKey, kid: str, compressed: bool = True) -> bytes:
    """Return the pieces ``plain``, a JWS, encrypted to ``key`` as a compact JWE with ``kid`` in its header.

    By ECDH-ES+A192KW and A192CBC-HS384, with DEF if ``compressed`` (protocol, section 6.2).
    """
    x, y, secret = p384.agree_once(key)
    point = {"x": encode_base64url(x).decode("ascii"), "y": encode_base64url(y).decode("ascii")}
    header: dict[str, object] = {"alg": _ALG, "enc": _ENC, "kid": kid, "cty": "JWT"}
    if compressed:
        header["zip"] = "DEF"
    header["epk"] = {"kty": "EC", "crv": "P-384"} | point
    head = encode_base64url(strictjson.dumps(header))
    encryption = _ENCRYPTIONS[_ENC]
    cek, iv = os.urandom(2 * encryption.half), os.urandom(_BLOCK)
    encryptor = Cipher(AES(cek[encryption.half :]), CBC(iv)).encryptor()
    ciphertext = encryptor.update(_padded(_deflated(plain) if compressed else list(plain)))
    tag = _tag(encryption, cek, head, iv, ciphertext)
    parts = (aes_key_wrap(_wrapping_key(_ALG, secret), cek), iv, ciphertext, tag)
    return b".".join([head, *map(encode_base64url, parts)])


def _deflated(plain: Iterable[bytes]) -> list[bytes]:
    pieces = list(plain)
    if sum(map(len, pieces)) < _LARGE:
        return [isal_zlib.compress(b"".join(pieces), _COMPRESSION, wbits=-isal_zlib.MAX_WBITS)]
    deflater = isal_zlib.compressobj(_COMPRESSION, wbits=-isal_zlib.MAX_WBITS)
    return [*map(deflater.compress, pieces), deflater.flush()]


def _padded(pieces: list[bytes]) -> bytes:
    """Return ``pieces`` in one, filled up to whole blocks (PKCS #7)."""
    count = _BLOCK - sum(map(len, pieces)) % _BLOCK
    return b"".join([*pieces, bytes([count]) * count])
