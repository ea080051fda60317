"""P-384: the elliptic-curve primitives of ES384 and ECDH-ES, and the one place that names their provider.

Most of a request's time is spent here. Another provider (OpenSSL's successors compute the same in half the time) can
take this one's place with a module of the same names. RFC 7518 sections 3.4, 4.6 and 6.2.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

COORDINATE_BYTES = 48
SIGNATURE_BYTES = 2 * COORDINATE_BYTES  # r and s
PROVIDER = backend.openssl_version_text()

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey

_CURVE = ec.SECP384R1()
_ES384 = ec.ECDSA(Prehashed(SHA384()))
_ECDH = ec.ECDH()
_UNCOMPRESSED = b"\x04"


def public_key(x: bytes, y: bytes) -> PublicKey:
    """Return the key at the point ``x``, ``y`` (48 bytes each); raises ValueError if it is not on the curve."""
    return PublicKey.from_encoded_point(_CURVE, b"".join((_UNCOMPRESSED, x, y)))


def private_key(d: bytes) -> PrivateKey:
    """Return the private key with the number ``d`` (48 bytes); raises ValueError if the curve has no such key."""
    return ec.derive_private_key(int.from_bytes(d), _CURVE)


def point_of(key: PublicKey) -> tuple[bytes, bytes]:
    """Return the coordinates x and y of ``key``, 48 bytes each."""
    numbers = key.public_numbers()
    return numbers.x.to_bytes(COORDINATE_BYTES), numbers.y.to_bytes(COORDINATE_BYTES)


def sign(key: PrivateKey, digest: bytes) -> bytes:
    """Return the signature (96 bytes, r then s) of ``digest``, the SHA-384 of what is signed."""
    r, s = decode_dss_signature(key.sign(digest, _ES384))
    return r.to_bytes(COORDINATE_BYTES) + s.to_bytes(COORDINATE_BYTES)


def verify(key: PublicKey, signature: bytes | bytearray, digest: bytes) -> bool:
    """Tell whether the private half of ``key`` made ``signature`` (96 bytes) of ``digest`` (SHA-384)."""
    r, s = int.from_bytes(signature[:COORDINATE_BYTES]), int.from_bytes(signature[COORDINATE_BYTES:])
    try:
        key.verify(encode_dss_signature(r, s), digest, _ES384)
    except InvalidSignature:
        return False
    return True


def agree(private: PrivateKey, public: PublicKey) -> bytes:
    """Return the secret (48 bytes) that ``private`` shares with the holder of the other half of ``public``."""
    return private.exchange(_ECDH, public)


def agree_once(public: PublicKey) -> tuple[bytes, bytes, bytes]:
    """Make a key for one agreement with the holder of ``public``; return its x and y, and the secret."""
    ephemeral = ec.generate_private_key(_CURVE)
    return *point_of(ephemeral.public_key()), agree(ephemeral, public)
