"""The platform and receiver keys: loaded, checked and parsed once, found by kid (PROTOCOL, "Who holds what").

Keys come from the environment (for any tenant) and from a directory: a file directly in it serves any
tenant, a file in a folder named by a tenant's UUID serves that tenant only. A file's name begins with its
role and may hold the kid: ``platform-<kid>.json``, ``receiver-<kid>.json``.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from jwcrypto.jwk import JWK

from receiver import curve, files, strictjson
from receiver.jose import TokenFault, as_ascii, canonical_uuid, decode_base64url
from receiver.sealing import SealingKey, SealingKeys

ROLES = ("platform", "receiver")
_SIGNATURE_OPS = {"sign", "verify"}
_AGREEMENT_OPS = {"deriveKey", "deriveBits", "wrapKey", "unwrapKey", "encrypt", "decrypt"}
_ALGORITHMS = {
    "ES384": "sig",
    "ECDH-ES": "enc",
    "ECDH-ES+A192KW": "enc",
    "ECDH-ES+A256KW": "enc",
}
_UUID_IN_NAME = re.compile(r"[0-9a-fA-F]{8}(?:[-_][0-9a-fA-F]{4}){3}[-_][0-9a-fA-F]{12}")
_FILE_NAME = re.compile(rf"(platform|receiver)(?:[-_.]key)?(?:[-_.]({_UUID_IN_NAME.pattern}))?\.(?:json|jwk)")
_NOT_KEYS = re.compile(r"\..*|README.*|mock-.*")


class KeyFault(ValueError):
    """A key cannot be used. The text says what would be valid and holds nothing of the key."""


@dataclass(frozen=True)
class Key:
    """A key of one role. ``tenants`` is None for any tenant; ``jwk`` and ``handle`` hold only what the role needs.

    ``handle`` is what the provider of the curve takes: a private key for a receiver's, else a public one.
    """

    role: str
    kid: str
    thumbprint: str
    source: str
    jwk: JWK = field(repr=False, compare=False)
    handle: curve.PrivateKey | curve.PublicKey = field(repr=False, compare=False)
    tenants: frozenset[str] | None = None

    def serves(self, tenant: str) -> bool:
        """Tell whether ``tenant`` (UUID text in any letter case) may use this key."""
        return self.tenants is None or tenant.lower() in self.tenants


class _Entry(NamedTuple):
    source: str
    text: str
    role: str
    tenant: str | None


class Keyring:
    """All keys of a receiver. Lookup is by role and kid; the tenant then says yes or no."""

    def __init__(self, keys: Iterable[Key] = (), sealing: Iterable[SealingKey] = ()):
        self._keys = {(key.role, key.kid.lower()): key for key in keys}
        self.sealing = SealingKeys(sealing)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def replace(self, other: "Keyring") -> None:
        """Hold the keys of ``other`` instead, at once, for whoever holds this ring."""
        self._keys, self.sealing = other._keys, other.sealing

    def find(self, role: str, kid: str, tenant: str) -> Key | None:
        """Return the key of ``role`` ("platform" or "receiver") with this ``kid`` if it serves ``tenant``."""
        key = self._keys.get((role, kid.lower()))
        return key if key is not None and key.serves(tenant) else None

    def finder(self, role: str, tenant: str) -> Callable[[str], curve.PrivateKey | curve.PublicKey | None]:
        """Return a function from kid to the handle of the key of ``role`` that serves ``tenant``, or to None."""

        def find(kid: str) -> curve.PrivateKey | curve.PublicKey | None:
            key = self.find(role, kid, tenant)
            return key.handle if key else None

        return find


def kid_in_name(name: str, whole: bool = False) -> str | None:
    """Return the UUID in a variable's or file's ``name`` (``whole``: that it is) in its usual spelling, or None.

    Underscores stand for hyphens, because shells drop variables whose names hold hyphens.
    """
    match = _UUID_IN_NAME.fullmatch(name) if whole else _UUID_IN_NAME.search(name)
    return match.group().replace("_", "-").lower() if match else None


def parse_key(text: str, role: str, source: str, tenant: str | None = None) -> Key:
    """Return the Key in ``text``, one JWK as JSON, for ``role``; ``source`` is the variable or file it is from.

    A kid in ``source``'s name must be the key's own. Raises KeyFault. Rules: PROTOCOL "Who holds what",
    RFC 7517 section 4, RFC 7518 section 6.2.
    """
    try:
        members = strictjson.loads(text.encode("utf-8", "replace"))
    except strictjson.NotJson:
        members = None
    if not isinstance(members, dict):
        raise KeyFault("must be one JWK as a JSON object")
    if members.get("kty") != "EC" or members.get("crv") != "P-384":
        raise KeyFault('must be an EC key on P-384 ("kty": "EC", "crv": "P-384")')
    kid = members.get("kid")
    if canonical_uuid(kid) is None:
        raise KeyFault('must have a "kid" that is a UUID')
    named = kid_in_name(source.rpartition("/")[2])
    if named is not None and named != kid.lower():
        raise KeyFault('has another "kid" than its name says')
    _check_purpose(members)
    jwk, handle = _public_or_private(members, private=role == "receiver")
    tenants = frozenset([tenant]) if tenant else None
    return Key(role, kid, jwk.thumbprint(), source, jwk, handle, tenants)


def _check_purpose(members: Mapping[str, object]) -> None:
    """Raise KeyFault when alg, use or key_ops exclude what this contract does, or one another."""
    alg, use, ops = members.get("alg"), members.get("use"), members.get("key_ops")
    if alg is not None and (not isinstance(alg, str) or alg not in _ALGORITHMS):
        raise KeyFault('has an "alg" that is not of this contract; ES384, ECDH-ES or none is valid')
    if use is not None and use not in ("sig", "enc"):
        raise KeyFault('has a "use" other than sig or enc')
    if alg is not None and use is not None and _ALGORITHMS[alg] != use:
        raise KeyFault('has an "alg" and a "use" that contradict each other')
    if ops is None:
        return
    known = _SIGNATURE_OPS | _AGREEMENT_OPS
    if not isinstance(ops, list) or not ops or not all(isinstance(op, str) and op in known for op in ops):
        raise KeyFault('has "key_ops" that are not operations of RFC 7517')
    purpose = use or (_ALGORITHMS[alg] if alg else None)
    if purpose and not set(ops) <= (_SIGNATURE_OPS if purpose == "sig" else _AGREEMENT_OPS):
        raise KeyFault('has "key_ops" that contradict its "alg" or "use"')


def _coordinate(members: Mapping[str, object], name: str) -> bytes:
    value = members.get(name)
    try:
        return bytes(decode_base64url(as_ascii(value), size=curve.COORDINATE_BYTES))
    except TokenFault:
        raise KeyFault(f'must have "{name}": {curve.COORDINATE_BYTES} bytes in base64url') from None


def _public_or_private(members: Mapping[str, object], private: bool) -> tuple[JWK, curve.PrivateKey | curve.PublicKey]:
    """Return a JWK of nothing but the numbers, checked, and its handle; the private half only if ``private``."""
    x, y = _coordinate(members, "x"), _coordinate(members, "y")
    if private and "d" not in members:
        raise KeyFault('must be private (have "d"): it decrypts states and signs replies')
    d = _coordinate(members, "d") if "d" in members else None
    try:
        public = curve.public_key(x, y)
        half = curve.private_key(d) if d else None
    except Exception:
        raise KeyFault("is not a point of P-384") from None
    if half is not None and curve.point_of(half.public_key()) != (x, y):
        raise KeyFault('has a "d" that does not belong to its "x" and "y"')
    names = ("kty", "crv", "x", "y", "d") if private else ("kty", "crv", "x", "y")
    return JWK(**{name: members[name] for name in names}), half if private else public


def _from_directory(directory: Path, tenant: str | None = None) -> Iterator["_Entry | str"]:
    """Yield an entry for each key file, a mistake for what is not one; a tenant's folder is one level deep.

    Files for people and for the mock platform (``README*``, ``mock-*``, hidden ones) are passed over.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if not _NOT_KEYS.fullmatch(path.name))
    except OSError as cause:
        yield f"{directory}: cannot be read ({type(cause).__name__})"
        return
    for path in paths:
        match = _FILE_NAME.fullmatch(path.name)
        folder = os.path.isdir(path)
        if folder and tenant is None and canonical_uuid(path.name):
            yield from _from_directory(path, canonical_uuid(path.name))
        elif folder:
            yield f"{path}: a folder of keys must be named by a tenant's UUID and lie directly in {directory}"
        elif match is None:
            yield f"{path}: must be named platform-<kid>.json or receiver-<kid>.json"
        else:
            try:
                yield _Entry(str(path), files.read_text(path), match.group(1), tenant)
            except ValueError as cause:
                yield f"{path}: {cause}"


def _from_environment(variables: Mapping[str, str]) -> Iterator["_Entry"]:
    for name, text in variables.items():
        yield _Entry(name, text, name.partition("_")[0].lower(), None)


def _entries(variables: Mapping[str, str], directory: Path | None) -> Iterator["_Entry | str"]:
    yield from _from_environment(variables)
    if directory and os.path.isdir(directory):  # the default one need not exist; Path.is_dir may raise
        yield from _from_directory(directory)


def is_empty(variables: Mapping[str, str], directory: Path | None) -> bool:
    """Tell whether there is neither a key nor anything that was meant as one; arguments as for ``load``."""
    return next(_entries(variables, directory), None) is None


def load(variables: Mapping[str, str], directory: Path | None) -> tuple[Keyring, list[str]]:
    """Return the keyring of the ``variables`` (name → JWK text) and of ``directory``, and all mistakes in them.

    A mistake is a line that names the variable or file and what would be valid; it never holds key material.
    """
    found: dict[tuple[str, str], Key] = {}
    mistakes: list[str] = []
    roles = set()
    for entry in _entries(variables, directory):
        if isinstance(entry, str):
            mistakes.append(entry)
            continue
        roles.add(entry.role)
        try:
            _add(found, parse_key(entry.text, entry.role, entry.source, entry.tenant))
        except KeyFault as fault:
            mistakes.append(f"{entry.source}: {fault}")
    for role in ROLES:
        if role not in roles:
            mistakes.append(
                f"{role.upper()}_KEY: no {role} key at all; set it to a JWK, or put {role}-<kid>.json into "
                f"{directory or 'a directory that STORAGE_KEYS names'}"
            )
    return Keyring(found.values()), mistakes


def _add(found: dict[tuple[str, str], Key], key: Key) -> None:
    """Add ``key`` to ``found``; the same key from two places serves the tenants of both."""
    for other in found.values():
        if other.role != key.role and other.thumbprint == key.thumbprint:
            raise KeyFault(f"is the same key as {other.source}; platform and receiver keys must differ")
    name = (key.role, key.kid.lower())
    other = found.get(name)
    if other is not None and other.thumbprint != key.thumbprint:
        raise KeyFault(f'has the same "kid" as {other.source} but is another key')
    if other is not None:
        both = None if None in (key.tenants, other.tenants) else key.tenants | other.tenants
        key = replace(other, tenants=both)
    found[name] = key
