"""Key files that a passphrase protects: Argon2id makes a key of it, XChaCha20-Poly1305 seals the JWK (PyNaCl).

The file is JSON. It holds the name of its format, the kid (readable, and authenticated), the cost of Argon2id, a
random salt, and the sealed JWK. Its name and place are those of the key in it.
"""

import json

import nacl.utils
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import Aead

from receiver import strictjson
from receiver.encoding import as_ascii, canonical_uuid, decode_base64url, encode_base64url
from receiver.jose import key_texts
from receiver.settings.key_sources import KeyFault

FORMAT = "receiver-key-argon2id-xchacha20poly1305"
_PASSES, _MEMORY = argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE  # 2, 64 MiB: 0.08 s of CPU
_MOST_PASSES, _MOST_MEMORY = 8, 256 << 20  # a file must not make a start take minutes, or all memory


def is_protected(text: str) -> bool:
    """Tell whether ``text`` is what ``protect`` made."""
    members = _members_of(text)
    return members is not None and members.get("format") == FORMAT


def protect(text: str, passphrase: str) -> str:
    """Return ``text``, a private JWK whose kid is a UUID, sealed with ``passphrase``; raises KeyFault."""
    try:
        members, *others = key_texts.jwks_in(text)
    except key_texts.NotJwk as fault:
        raise KeyFault(str(fault)) from None
    if others or canonical_uuid(members.get("kid")) is None:
        raise KeyFault('must be one JWK as a JSON object with a "kid" that is a UUID')
    if members.get("format") == FORMAT:
        raise KeyFault("is protected already")
    if not {"d", "k"} & set(members):
        raise KeyFault("holds nothing private")
    salt = nacl.utils.random(argon2id.SALTBYTES)
    sealed = _box(passphrase, salt, _PASSES, _MEMORY).encrypt(text.encode("utf-8"), _bound(members["kid"]))
    protected = {
        "format": FORMAT,
        "kid": members["kid"],
        "passes": _PASSES,
        "memory": _MEMORY,
        "salt": encode_base64url(salt).decode("ascii"),
        "sealed": encode_base64url(sealed).decode("ascii"),
    }
    return json.dumps(protected, indent=2) + "\n"


def open_text(text: str, passphrase: str) -> str:
    """Return the text from which ``protect`` made ``text``; a text that is not protected comes back as it is.

    Takes 64 MiB for a moment. Raises KeyFault if ``passphrase`` is missing or wrong, or the file was changed.
    """
    members = _members_of(text)
    if members is None or members.get("format") != FORMAT:
        return text
    if not passphrase:
        raise KeyFault("is protected by a passphrase: set STORAGE_KEY_PASSPHRASE, or STORAGE_KEY_PASSPHRASE_FILE")
    passes = _within(members.get("passes"), 1, _MOST_PASSES)
    memory = _within(members.get("memory"), argon2id.MEMLIMIT_MIN, _MOST_MEMORY)
    if passes is None or memory is None:
        raise KeyFault(f"must take 1 to {_MOST_PASSES} passes over at most {_MOST_MEMORY >> 20} MiB to be opened")
    try:
        salt = bytes(decode_base64url(as_ascii(members.get("salt")), size=argon2id.SALTBYTES))
        sealed = bytes(decode_base64url(as_ascii(members.get("sealed"))))
        opened = _box(passphrase, salt, passes, memory).decrypt(sealed, _bound(members.get("kid")))
        return opened.decode("utf-8")
    except (CryptoError, ValueError):
        oddity = key_texts.oddity(passphrase)
        reason = f"STORAGE_KEY_PASSPHRASE is not its passphrase{oddity}, or the file was changed"
        raise KeyFault(f"cannot be opened: {reason}") from None


def _members_of(text: str) -> dict[str, object] | None:
    try:
        members = strictjson.loads(text.removeprefix(key_texts.BYTE_ORDER_MARK).encode("utf-8", "replace"))
    except strictjson.NotJson:
        return None
    return members if isinstance(members, dict) else None


def _within(value: object, least: int, most: int) -> int | None:
    """Return ``value`` if it is an int from ``least`` to ``most``, else None."""
    return value if type(value) is int and least <= value <= most else None


def _bound(kid: object) -> bytes:
    return f"{FORMAT} {kid}".encode("utf-8", "replace")


def _box(passphrase: str, salt: bytes, passes: int, memory: int) -> Aead:
    secret = passphrase.encode("utf-8", "surrogateescape")
    return Aead(argon2id.kdf(Aead.KEY_SIZE, secret, salt, opslimit=passes, memlimit=memory))
