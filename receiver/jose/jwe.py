"""Encryption: compact JWE as this contract has it (RFC 7516; RFC 7518 sections 4.6 and 5.2; RFC 3394).

Keys are agreed by ECDH-ES and wrap a fresh one, which encrypts by AES-CBC and authenticates by HMAC. The primitives
are the cryptography library's; what is put into them, and in which order, stands here, and the tests compare it
with two other libraries in both directions.
"""

import hmac
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from isal import isal_zlib

from receiver import strictjson
from receiver.jose import p384
from receiver.jose.compact import (
    MAX_HEADER,
    Rule,
    TokenFault,
    as_ascii,
    decode_base64url,
    decode_number,
    encode_base64url,
    is_kid,
    is_label,
    one_of,
    parts_of,
    read_header,
)
from receiver.problems import TooLarge

_BLOCK = 16  # bytes of AES
_WRAP_EXTRA = 8  # bytes by which a wrapped key is longer (RFC 3394)
_LARGE = 1 << 20  # bytes that are not copied to be compressed in one go, though that is quicker
_COMPRESSION = 1  # of 0 to 3; the next ones take longer and save a hundredth (make bench)


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
    "epk": lambda value: True,  # judged where it is used, since a bad one must cost what a good one does
    "apu": _is_party_info,
    "apv": _is_party_info,
}


def decrypt(token: bytes, find_key: Callable[[str], p384.PrivateKey | None], max_inflated: int) -> tuple[bytes, int]:
    """Return what is inside ``token``, a compact JWE, and how many bytes of it inflating made (0 if not compressed).

    ``find_key`` takes the header's ``kid`` and returns the key that opens it, or None; ``max_inflated`` is in bytes.
    Raises TokenFault, TooLarge beyond ``max_inflated``, and what a library raises.
    """
    where, wrapped, iv, ciphertext, tag = parts_of(token, 5)
    head = token[slice(*where)]
    header = read_header(head, _RULES, ("alg", "enc", "kid", "cty", "epk"))
    half = _ENCRYPTIONS[header["enc"]].half
    raw = {
        "wrapped": decode_base64url(token, *wrapped, size=2 * half + _WRAP_EXTRA),
        "iv": decode_base64url(token, *iv, size=_BLOCK),
        "ciphertext": decode_base64url(token, *ciphertext),
        "tag": decode_base64url(token, *tag, size=half),
    }
    if not raw["ciphertext"] or len(raw["ciphertext"]) % _BLOCK:
        raise TokenFault("the ciphertext is not whole blocks")
    key = find_key(header["kid"])
    if key is None:
        raise TokenFault("the kid names no receiver key of this tenant")
    del token
    plain = _open(key, header, head, **raw)
    if "zip" not in header:
        return bytes(plain), 0
    del raw
    inflated = _inflate(plain, max_inflated)
    return inflated, len(inflated)


def _open(key: p384.PrivateKey, header: dict, head: bytes, wrapped, iv, ciphertext, tag) -> memoryview:
    """Return the plaintext; raises TokenFault, or what a library has, when anything of it is not what was sealed."""
    encryption = _ENCRYPTIONS[header["enc"]]
    cek = _content_key(key, header, bytes(wrapped))
    if not hmac.compare_digest(_tag(encryption, cek, head, iv, ciphertext), tag):
        raise TokenFault("it does not decrypt")
    decryptor = Cipher(AES(cek[encryption.half :]), CBC(bytes(iv))).decryptor()
    padded = decryptor.update(ciphertext)
    count = padded[-1]  # PKCS #7: as many bytes of that value; it is authentic, and so no oracle
    if not 1 <= count <= _BLOCK or padded[-count:] != bytes([count]) * count:
        raise TokenFault("the padding is none")
    return memoryview(padded)[:-count]


def _content_key(key: p384.PrivateKey, header: dict, wrapped: bytes) -> bytes:
    """Return the key of the content; a random one where there is none, by which the tag fails a little later.

    So an ephemeral key that is bad, a key that does not unwrap and a wrong tag take the same time, that of one
    agreement, and are told apart by nobody (RFC 7516 section 11.5).
    """
    public = _ephemeral_key(header["epk"])
    secret = p384.agree(key, public or key.public_key())
    try:
        cek = aes_key_unwrap(_wrapping_key(header, secret), wrapped)
    except InvalidUnwrap:
        public = None
    return cek if public else os.urandom(len(wrapped) - _WRAP_EXTRA)


def _ephemeral_key(epk: object) -> p384.PublicKey | None:
    """Return the public key that ``epk`` is (RFC 7518 section 4.6.1.1); None if it is bad, or has a private half.

    Its other members say nothing that is needed, and are ignored.
    """
    if not isinstance(epk, dict) or "d" in epk:
        return None
    if epk.get("kty") != "EC" or epk.get("crv") != "P-384":
        return None
    try:
        x, y = (decode_number(epk.get(name), p384.COORDINATE_BYTES) for name in ("x", "y"))
        return p384.public_key(x, y)
    except ValueError:  # a TokenFault is one, and so is what a point off the curve makes
        return None


def _wrapping_key(header: dict, secret: bytes) -> bytes:
    """Return the key that wraps the content's (RFC 7518 section 4.6.2: Concat KDF, NIST SP 800-56A)."""
    size = _WRAPS[header["alg"]]
    algorithm = header["alg"].encode("ascii")
    parties = (decode_base64url(as_ascii(header[name])) if name in header else b"" for name in ("apu", "apv"))
    info = b"".join(b"%b%b" % (len(field).to_bytes(4), field) for field in (algorithm, *parties))
    info += (8 * size).to_bytes(4)
    return ConcatKDFHash(SHA256(), size, info).derive(secret)


def _tag(encryption: _Encryption, cek: bytes, head: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Return the authentication tag, RFC 7518 section 5.2.2.1 step 5."""
    mac = hmac.new(cek[: encryption.half], head, encryption.hash)
    mac.update(iv)
    mac.update(ciphertext)
    mac.update(struct.pack(">Q", 8 * len(head)))
    return mac.digest()[: encryption.half]


def _inflate(data: memoryview, limit: int) -> bytes:
    """Return ``data`` inflated (RFC 1951); raises TooLarge beyond ``limit`` bytes, TokenFault if it is damaged.

    Where its beginning has not even the end of a header the rest is not inflated, however little it was sent as.
    """
    inflater, first = (isal_zlib.decompressobj(-isal_zlib.MAX_WBITS) for _ in range(2))
    try:
        if b"." not in first.decompress(data[: 2 * MAX_HEADER], MAX_HEADER + 1):
            raise TokenFault("what is inside is no compact token")
        inflated = inflater.decompress(data, limit + 1)
    except isal_zlib.error:
        raise TokenFault("the compressed data is damaged") from None
    if len(inflated) > limit:
        raise TooLarge("a token inflates past STORAGE_MAX_INFLATED")
    if not inflater.eof or inflater.unused_data:
        raise TokenFault("the compressed data is damaged")
    return inflated


def encrypt(plain: Iterable[bytes], key: p384.PublicKey, kid: str, compressed: bool = True) -> bytes:
    """Return the pieces ``plain``, a JWS, encrypted to ``key`` as a compact JWE, ``kid`` in its header.

    Protocol, section 6.2: ECDH-ES+A192KW, A192CBC-HS384, and DEF if ``compressed``.
    """
    x, y, secret = p384.agree_once(key)
    header = {"alg": "ECDH-ES+A192KW", "enc": "A192CBC-HS384", "kid": kid, "cty": "JWT"}
    if compressed:
        header["zip"] = "DEF"
    encryption = _ENCRYPTIONS[header["enc"]]
    point = {"x": encode_base64url(x).decode("ascii"), "y": encode_base64url(y).decode("ascii")}
    header["epk"] = {"kty": "EC", "crv": "P-384"} | point
    head = encode_base64url(strictjson.dumps(header))
    cek, iv = os.urandom(2 * encryption.half), os.urandom(_BLOCK)
    encryptor = Cipher(AES(cek[encryption.half :]), CBC(iv)).encryptor()
    ciphertext = encryptor.update(_padded(_deflated(plain) if compressed else list(plain)))
    tag = _tag(encryption, cek, head, iv, ciphertext)
    parts = (aes_key_wrap(_wrapping_key(header, secret), cek), iv, ciphertext, tag)
    return b".".join([head, *map(encode_base64url, parts)])


def _deflated(pieces: Iterable[bytes]) -> list[bytes]:
    pieces = list(pieces)
    if sum(map(len, pieces)) < _LARGE:
        return [isal_zlib.compress(b"".join(pieces), _COMPRESSION, wbits=-isal_zlib.MAX_WBITS)]
    deflater = isal_zlib.compressobj(_COMPRESSION, wbits=-isal_zlib.MAX_WBITS)
    return [*map(deflater.compress, pieces), deflater.flush()]


def _padded(pieces: list[bytes]) -> bytes:
    """Return ``pieces`` in one, filled up to whole blocks (PKCS #7)."""
    count = _BLOCK - sum(map(len, pieces)) % _BLOCK
    return b"".join([*pieces, bytes([count]) * count])
