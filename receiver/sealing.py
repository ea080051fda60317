"""Content at rest: sealed with XChaCha20-Poly1305 before a store gets it, opened when it comes back.

A sealing key is a JWK of 32 random bytes (RFC 7518 section 6.4). Its kid is derived from them, so a wrong key cannot
pass for the right one. The tenant, id and updatedAt of a state are authenticated with its content: moved to another
state, or to another time, it does not open.
"""

import base64
import hashlib
import uuid
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import pybase64
from isal import isal_zlib
from nacl.exceptions import CryptoError
from nacl.secret import Aead
from nacl.utils import random

from receiver.encoding import EncodingFault, as_ascii, canonical_uuid, decode_base64url
from receiver.jose import key_texts
from receiver.problems import StoreDamaged
from receiver.states import Content, State

_FORMAT = "receiver-sealed-1"
_PERSON = b"sealing key id"  # BLAKE2b's personalisation: this hash of a key serves no other purpose
_LEVEL = 1
_STORED, _DEFLATED = b"\0", b"\1"
_RAW_DEFLATE = -15  # zlib's window bits: without header and checksum, since the tag is one


class SealingFault(ValueError):
    """A sealing key cannot be used. The message says what would be valid and repeats nothing of the key."""


@dataclass(frozen=True)
class SealingKey:
    """A key for contents, made at ``issued``; it seals from ``since`` on. Both are seconds since the epoch."""

    kid: str
    issued: int
    since: int
    source: str
    box: Aead = field(repr=False, compare=False)


class SealingKeys:
    """The sealing keys of a receiver: every one opens; the newest whose time has come seals.

    So every receiver and every worker can have a new key before the first content needs it.
    """

    def __init__(self, keys: Iterable[SealingKey] = ()) -> None:
        self._keys = {key.kid: key for key in keys}
        self._in_order = sorted(self._keys.values(), key=lambda key: (key.since, key.kid))

    def __iter__(self) -> Iterator[SealingKey]:
        return iter(self._keys.values())

    def __contains__(self, kid: str) -> bool:
        return kid in self._keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def last(self) -> SealingKey | None:
        """The key with the latest start, which may lie in the future; None if there is none."""
        return self._in_order[-1] if self._in_order else None

    @property
    def first(self) -> SealingKey | None:
        """The key with the earliest start, which may lie in the future; None if there is none."""
        return self._in_order[0] if self._in_order else None

    def at(self, now: float) -> SealingKey | None:
        """Return the key that seals at ``now`` (seconds since the epoch); None while none has started."""
        ready = [key for key in self._in_order if key.since <= now]
        return ready[-1] if ready else None

    def seal(self, state: State, kid: str) -> State:
        """Return ``state``, whose content is clear, with that content sealed by the key ``kid``, one of these."""
        key = self._keys[kid]
        clear = state.content.text.encode("utf-8")
        packed = isal_zlib.compress(clear, _LEVEL, _RAW_DEFLATE)
        packed = _DEFLATED + packed if len(packed) < len(clear) else _STORED + clear
        del clear
        sealed = key.box.encrypt(packed, _belonging(state, key.kid))
        text = pybase64.b64encode(sealed).decode("ascii")
        return replace(state, content=Content(text, key.kid))

    def open(self, state: State) -> State:
        """Return ``state`` with its content in the clear; its key must be one of these.

        Raises StoreDamaged when the content is not what was sealed for this tenant, id and updatedAt.
        """
        key = self._keys[state.content.sealing_key or ""]
        try:
            sealed = pybase64.b64decode(state.content.text.encode("ascii"), validate=True)
            packed = key.box.decrypt(sealed, _belonging(state, key.kid))
            how, body = packed[:1], memoryview(packed)[1:]
            clear = isal_zlib.decompress(body, _RAW_DEFLATE) if how == _DEFLATED else body
            text = str(clear, "utf-8")
        except (CryptoError, ValueError, zlib.error) as cause:
            raise StoreDamaged(
                f"state {state.id} of tenant {state.tenant}: its content is not what the key {key.kid} sealed for it"
            ) from cause
        return replace(state, content=Content(text))


def _belonging(state: State, kid: str) -> bytes:
    """Return the associated data of ``state``'s content; every part has one spelling, without a bar."""
    return f"{_FORMAT}|{kid}|{state.tenant}|{state.id}|{state.updated_at.nanoseconds}".encode("ascii")


def kid_of(secret: bytes) -> str:
    """Return the kid of the key ``secret`` (32 bytes): a UUID of its hash, which reveals nothing of it."""
    return str(uuid.UUID(bytes=hashlib.blake2b(secret, digest_size=16, person=_PERSON).digest()))


def generate(now: float, since: float | None = None) -> dict[str, object]:
    """Return a new sealing key as the members of a JWK, made at ``now``; it seals from ``since`` or ``now`` on.

    Both are seconds since the epoch; "iat" and "nbf" mean what they mean in RFC 7519.
    """
    secret = random(Aead.KEY_SIZE)
    k = base64.urlsafe_b64encode(secret).rstrip(b"=").decode("ascii")
    times = {"iat": int(now), "nbf": int(now if since is None else since)}
    return {"kty": "oct", "kid": kid_of(secret), **times, "k": k}


def parse_keys(text: str, source: str) -> list[SealingKey]:
    """Return the keys in ``text``: a JWK as ``generate`` makes it, or a JWK set of them (RFC 7517 section 5).

    ``source`` is the variable or file that holds the text. Raises SealingFault.
    """
    try:
        return [_parse(one, source) for one in key_texts.jwks_in(text)]
    except key_texts.NotJwk as fault:
        needed = ": `receiver keys sealing` makes one" if "JWK is needed" in str(fault) else ""
        raise SealingFault(f"{fault}{needed}") from None


def _parse(members: dict[str, object], source: str) -> SealingKey:
    if members.get("kty") != "oct":
        raise SealingFault('must be a JWK with "kty": "oct"; `receiver keys sealing` makes one')
    try:
        secret = bytes(decode_base64url(as_ascii(members.get("k")), size=Aead.KEY_SIZE))
    except EncodingFault:
        raise SealingFault(f'must have "k": {Aead.KEY_SIZE} bytes in base64url') from None
    issued = _seconds(members, "iat", 0)
    since = _seconds(members, "nbf", issued)
    if canonical_uuid(members.get("kid")) != kid_of(secret):
        raise SealingFault('has a "kid" that is not that of its "k": one of them was changed')
    return SealingKey(kid_of(secret), issued, since, source, Aead(secret))


def _seconds(members: dict[str, object], name: str, default: int) -> int:
    value = members.get(name, default)
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise SealingFault(f'has an "{name}" that is not whole seconds since 1970')
    return value
