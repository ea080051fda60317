"""Key files that a passphrase protects: Argon2id makes a key of it, XChaCha20-Poly1305 seals the JWK (PyNaCl).

The file is JSON: its format's name, the kid, which is readable and cannot be changed unseen, what Argon2id is to do,
a random salt, and what was sealed. Its name and place are those of the key in it.
"""

import json

import nacl.utils
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import Aead

from receiver import strictjson
from receiver.jose import key_texts
from receiver.jose.compact import TokenFault, as_ascii, canonical_uuid, decode_base64url, encode_base64url
from receiver.settings.key_sources import KeyFault

FORMAT = "receiver-key-argon2id-xchacha20poly1305"
_PASSES, _MEMORY = argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE  # 2, 64 MiB: 0.08 s of CPU
_MOST_PASSES, _MOST_MEMORY = 8, 256 << 20  # a file must not make a start take minutes, or all memory


def is_protected(text: str) -> bool:
    """Tell whether ``text`` is what ``protect`` made."""
    members = _members_of(text)
    return members is not None and members.get("format") == FORMAT


def protect(text: str, passphrase: str) -> str:
    """Return ``text``, a private JWK whose kid is a UUID, such that only ``passphrase`` opens it. Raises KeyFault."""
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
    """Return what ``protect`` was given to make ``text``; a text that is not protected as it is.

    Takes 64 MiB for a moment. Raises KeyFault where ``passphrase`` is missing or another one, or the file was changed.
    """
    members = _members_of(text)
    if members is None or members.get("format") != FORMAT:
        return text
    if not passphrase:
        raise KeyFault("is protected by a passphrase: set STORAGE_KEY_PASSPHRASE, or STORAGE_KEY_PASSPHRASE_FILE")
    passes, memory = members.get("passes"), members.get("memory")
    if not _within(passes, 1, _MOST_PASSES) or not _within(memory, argon2id.MEMLIMIT_MIN, _MOST_MEMORY):
        raise KeyFault(f"must take 1 to {_MOST_PASSES} passes over at most {_MOST_MEMORY >> 20} MiB to be opened")
    try:
        salt = bytes(decode_base64url(as_ascii(members.get("salt")), size=argon2id.SALTBYTES))
        sealed = bytes(decode_base64url(as_ascii(members.get("sealed"))))
        opened = _box(passphrase, salt, passes, memory).decrypt(sealed, _bound(members.get("kid")))
        return opened.decode("utf-8")
    except (TokenFault, CryptoError, ValueError):
        oddity = key_texts.oddity(passphrase)
        reason = f"STORAGE_KEY_PASSPHRASE is not its passphrase{oddity}, or the file was changed"
        raise KeyFault(f"cannot be opened: {reason}") from None


def _members_of(text: str) -> dict | None:
    try:
        members = strictjson.loads(text.removeprefix(key_texts.BYTE_ORDER_MARK).encode("utf-8", "replace"))
    except strictjson.NotJson:
        return None
    return members if isinstance(members, dict) else None


def _within(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _bound(kid: object) -> bytes:
    return f"{FORMAT} {kid}".encode("utf-8", "replace")


def _box(passphrase: str, salt: bytes, passes: int, memory: int) -> Aead:
    secret = passphrase.encode("utf-8", "surrogateescape")
    return Aead(argon2id.kdf(Aead.KEY_SIZE, secret, salt, opslimit=passes, memlimit=memory))
