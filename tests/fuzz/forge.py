"""Keys for fuzzing, derived from words and so of no worth, and tokens made with them whatever stands in their parts.

Mutating a finished token gets nowhere: the first check of its cryptography ends it. So what is mutated is what
stands inside; it is signed and sealed here, as cheaply as can be, for each try.
"""

import base64
import functools
import hashlib
import hmac
import json
import uuid
import zlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

EPK = b'"EPK"'  # in a header's JSON: the place of the ephemeral key that is really used
_CEK = bytes(range(64))
_IV = bytes(16)
_WRAPS = {"ECDH-ES+A192KW": 24, "ECDH-ES+A256KW": 32}
_HALVES = {"A192CBC-HS384": (24, "sha384"), "A256CBC-HS512": (32, "sha512")}


def base64url(data: bytes) -> bytes:
    """Return ``data`` as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _private(word: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(word.encode()).digest()), ec.SECP384R1())


class Pair:
    """A key pair that follows from ``word``: ``kid``, ``key`` (private), and ``jwk``, all of it as a dict."""

    def __init__(self, word: str):
        self.key = _private(word)
        self.kid = str(uuid.uuid5(uuid.NAMESPACE_URL, word))
        numbers = self.key.private_numbers()
        point = {"x": numbers.public_numbers.x, "y": numbers.public_numbers.y, "d": numbers.private_value}
        texts = {name: base64url(number.to_bytes(48)).decode() for name, number in point.items()}
        self.jwk = {"kty": "EC", "crv": "P-384", "kid": self.kid} | texts

    @property
    def public(self) -> dict:
        """The public half, as a dict."""
        return {name: value for name, value in self.jwk.items() if name != "d"}


PLATFORM, RECEIVER = Pair("fuzz: platform"), Pair("fuzz: receiver")
_EPHEMERAL = Pair("fuzz: ephemeral")
_POINT = json.dumps({name: _EPHEMERAL.jwk[name] for name in ("kty", "crv", "x", "y")}, separators=(",", ":")).encode()
_SECRET = _EPHEMERAL.key.exchange(ec.ECDH(), RECEIVER.key.public_key())


def signed(header: bytes, payload: bytes) -> bytes:
    """Return a compact JWS whose header is the JSON (or not) ``header``, truly signed by the platform key."""
    text = base64url(header) + b"." + base64url(payload)
    r, s = decode_dss_signature(PLATFORM.key.sign(text, ec.ECDSA(SHA384())))
    return text + b"." + base64url(r.to_bytes(48) + s.to_bytes(48))


def sealed(header: bytes, plain: bytes) -> bytes:
    """Return a compact JWE of ``plain`` to the receiver key, which decrypts if ``header`` says how, EPK in it."""
    head = base64url(header.replace(EPK, _POINT))
    alg, enc, parties = _said(header)
    half, digest = _HALVES[enc]
    cek = _CEK[: 2 * half]
    count = 16 - len(plain) % 16
    encryptor = Cipher(algorithms.AES(cek[half:]), modes.CBC(_IV)).encryptor()
    ciphertext = encryptor.update(plain + bytes([count]) * count)
    tag = hmac.digest(cek[:half], head + _IV + ciphertext + (8 * len(head)).to_bytes(8), digest)[:half]
    wrapped = aes_key_wrap(_wrapping_key(alg, parties), cek)
    return b".".join([head, *map(base64url, (wrapped, _IV, ciphertext, tag))])


def _said(header: bytes) -> tuple[str, str, tuple[bytes, bytes]]:
    """Return alg, enc, and apu and apv of ``header``, as far as they are any."""
    try:
        members = json.loads(header)
        parties = tuple(base64.urlsafe_b64decode(members.get(name, "") + "==") for name in ("apu", "apv"))
        if members["alg"] in _WRAPS and members["enc"] in _HALVES:
            return members["alg"], members["enc"], parties
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        pass
    return "ECDH-ES+A192KW", "A192CBC-HS384", (b"", b"")


@functools.cache
def _wrapping_key(alg: str, parties: tuple[bytes, bytes]) -> bytes:
    fields = (alg.encode(), *parties)
    info = b"".join(len(field).to_bytes(4) + field for field in fields) + (8 * _WRAPS[alg]).to_bytes(4)
    return ConcatKDFHash(SHA256(), _WRAPS[alg], info).derive(_SECRET)


JWS_HEADER = json.dumps({"alg": "ES384", "kid": PLATFORM.kid}, separators=(",", ":")).encode()
JWE_HEADER = b'{"alg":"ECDH-ES+A192KW","enc":"A192CBC-HS384","kid":"%b","cty":"JWT","zip":"DEF","epk":"EPK"}'
JWE_HEADER %= RECEIVER.kid.encode()


def deflated(data: bytes) -> bytes:
    """Return ``data`` compressed as RFC 1951 has it."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def state_token(jws: bytes) -> str:
    """Return ``jws`` sealed as the platform does it."""
    return sealed(JWE_HEADER, deflated(jws)).decode()
