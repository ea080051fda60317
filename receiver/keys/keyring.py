"""The platform and receiver keys: loaded, checked and parsed once, found by kid (protocol, section 1)."""

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, Literal, TypeVar, overload

from receiver import files, strictjson
from receiver.encoding import EncodingFault, canonical_uuid, encode_base64url
from receiver.jose import key_texts, p384
from receiver.jose.compact import TokenFault, decode_number
from receiver.keys import passphrase
from receiver.keys.usage import KeyUses
from receiver.process.run_folder import TRIAL_SECONDS
from receiver.sealing import SealingFault, SealingKey, SealingKeys, parse_keys
from receiver.secret import Secret
from receiver.settings import Settings, key_sources
from receiver.settings.key_sources import ROLES, Entry, KeyFault, kid_in_name

__all__ = ["ROLES", "Key", "KeyFault", "Keyring", "is_empty", "load", "load_sealing", "parse_key"]
_SIGNATURE_OPS = {"sign", "verify"}
_AGREEMENT_OPS = {"deriveKey", "deriveBits", "wrapKey", "unwrapKey", "encrypt", "decrypt"}
_ALGORITHMS = {
    "ES384": "sig",
    "ECDH-ES": "enc",
    "ECDH-ES+A192KW": "enc",
    "ECDH-ES+A256KW": "enc",
}
Handle = TypeVar("Handle", p384.PublicKey, p384.PrivateKey)


@dataclass(frozen=True)
class Key(Generic[Handle]):
    """A key of one role. ``tenants`` is None for any tenant; ``thumbprint`` is that of RFC 7638.

    ``handle`` is what the provider of the curve takes: a private key for a receiver's, else a public one. ``made`` is
    in seconds since the epoch, None if that is unknown.
    """

    role: str
    kid: str
    thumbprint: str
    source: str
    handle: Handle = field(repr=False, compare=False)
    tenants: frozenset[str] | None = None
    made: int | None = None

    def serves(self, tenant: str) -> bool:
        """Tell whether ``tenant`` (UUID text in any letter case) may use this key."""
        return self.tenants is None or tenant.lower() in self.tenants


PlatformKey = Key[p384.PublicKey]
ReceiverKey = Key[p384.PrivateKey]
AnyKey = PlatformKey | ReceiverKey


class Keyring:
    """All keys of a receiver. A lookup is by role and kid; the tenant then decides.

    ``sealing`` holds the keys of contents. ``uses`` notes when each key was used. ``protected`` names the sources that
    a passphrase opened. ``exposed`` holds a line for each private key file that everybody on the machine may use.
    ``tried`` holds the kids of keys that are there for a trial, until ``tried_until`` (time.monotonic).
    """

    def __init__(self, keys: Iterable[AnyKey] = (), sealing: Iterable[SealingKey] = ()) -> None:
        self._keys: dict[tuple[str, str], AnyKey] = {(key.role, key.kid.lower()): key for key in keys}
        self.sealing = SealingKeys(sealing)
        self.uses = KeyUses()
        self.protected: frozenset[str] = frozenset()
        self.exposed: tuple[str, ...] = ()
        self.tried: frozenset[str] = frozenset()
        self.tried_until = 0.0

    def __iter__(self) -> Iterator[AnyKey]:
        return iter(self._keys.values())

    def replace(self, other: "Keyring") -> None:
        """Take over the keys of ``other``, at once for everyone who holds this ring."""
        self._keys, self.sealing = other._keys, other.sealing
        self.protected, self.exposed = other.protected, other.exposed
        self.tried, self.tried_until = other.tried, other.tried_until

    def try_out(self, entries: Iterable[Entry]) -> None:
        """Add the usable keys in ``entries`` for a trial; none of them takes the place of another key.

        Their time ends TRIAL_SECONDS after they were written, even if nobody removes them.
        """
        tried = []
        for entry in entries:
            with contextlib.suppress(KeyFault):
                key = parse_key(entry.text.text, entry.role, entry.source, entry.tenant)
                if key.tenants and self._keys.setdefault((key.role, key.kid.lower()), key) is key:
                    tried.append(key.kid)
                    left = TRIAL_SECONDS - (time.time() - (entry.written() or 0))
                    self.tried_until = time.monotonic() + min(left, TRIAL_SECONDS)
        self.tried = frozenset(tried)

    @overload
    def find(self, role: Literal["platform"], kid: str, tenant: str) -> PlatformKey | None: ...
    @overload
    def find(self, role: Literal["receiver"], kid: str, tenant: str) -> ReceiverKey | None: ...
    def find(self, role: str, kid: str, tenant: str) -> AnyKey | None:
        """Return the key of ``role`` with this ``kid`` if it serves ``tenant``, else None."""
        key = self._keys.get((role, kid.lower()))
        if key is None or not key.serves(tenant):
            return None
        return key if key.kid not in self.tried or time.monotonic() < self.tried_until else None

    def note(self, now: float, *keys: AnyKey) -> None:
        """Note that ``keys`` served a proven request at ``now``, seconds since the epoch."""
        for key in keys:
            if key.kid not in self.tried:
                self.uses.note(key.role, key.kid, now)


def parse_key(text: str, role: str, source: str, tenant: str | None = None) -> AnyKey:
    """Return the Key in ``text``, one JWK or a set of one, for ``role``; ``source`` is the variable or file it is from.

    A kid in ``source``'s name must be the key's own. Raises KeyFault. Rules: protocol, section 1.3,
    RFC 7517 section 4, RFC 7518 section 6.2.
    """
    members = _one_jwk(text)
    if members.get("kty") != "EC" or members.get("crv") != "P-384":
        raise KeyFault('must be an EC key on P-384 ("kty": "EC", "crv": "P-384")')
    kid = members.get("kid")
    if not isinstance(kid, str) or canonical_uuid(kid) is None:
        raise KeyFault('must have a "kid" that is a UUID')
    named = kid_in_name(source.rpartition("/")[2].lower().rpartition(role)[2])  # before it, a tenant's may stand
    if named is not None and named != kid.lower():
        raise KeyFault('has another "kid" than its name says')
    _check_purpose(members)
    x, y = _coordinate(members, "x"), _coordinate(members, "y")
    if role == "receiver" and "d" not in members:
        raise KeyFault('must be private (have "d"): it decrypts states and signs replies')
    public, private = _halves(x, y, _coordinate(members, "d") if "d" in members else None)
    made = members.get("iat")
    what = (role, kid, _thumbprint(x, y), source)
    more = (frozenset([tenant]) if tenant else None, made if type(made) is int else None)
    if role == "receiver" and private is not None:
        return ReceiverKey(*what, private, *more)
    return PlatformKey(*what, public, *more)


def _thumbprint(x: bytes, y: bytes) -> str:
    """Return the thumbprint of the key at the point ``x``, ``y`` (RFC 7638 section 3)."""
    point = {name: encode_base64url(number).decode("ascii") for name, number in (("x", x), ("y", y))}
    text = strictjson.dumps({"crv": "P-384", "kty": "EC", **point})
    return encode_base64url(hashlib.sha256(text).digest()).decode("ascii")


def _one_jwk(text: str) -> Mapping[str, object]:
    try:
        found = key_texts.jwks_in(text)
    except key_texts.NotJwk as fault:
        needed = ": the JSON that the platform gave out, with its kid" if "JWK is needed" in str(fault) else ""
        raise KeyFault(f"{fault}{needed}") from None
    if len(found) > 1:
        raise KeyFault(f"is a JWK set of {len(found)} keys: give each key a file or a variable of its own")
    return found[0]


def _check_purpose(members: Mapping[str, object]) -> None:
    """Raise KeyFault if alg, use or key_ops exclude what this contract does, or contradict one another."""
    alg, use, ops = members.get("alg"), members.get("use"), members.get("key_ops")
    if alg is not None and (not isinstance(alg, str) or alg not in _ALGORITHMS):
        raise KeyFault('has an "alg" that is not of this contract; ES384, ECDH-ES or none is valid')
    if use is not None and use not in ("sig", "enc"):
        raise KeyFault('has a "use" other than sig or enc')
    if alg is not None and use is not None and _ALGORITHMS[alg] != use:
        raise KeyFault('has an "alg" and a "use" that contradict each other')
    if ops is None or ops == []:  # some libraries write an empty list for none
        return
    known = _SIGNATURE_OPS | _AGREEMENT_OPS
    if not isinstance(ops, list) or not all(isinstance(op, str) and op in known for op in ops):
        raise KeyFault('has "key_ops" that are not operations of RFC 7517')
    purpose = use or (_ALGORITHMS[alg] if alg else None)
    if purpose and not set(ops) <= (_SIGNATURE_OPS if purpose == "sig" else _AGREEMENT_OPS):
        raise KeyFault('has "key_ops" that contradict its "alg" or "use"')


def _coordinate(members: Mapping[str, object], name: str) -> bytes:
    try:
        return decode_number(members.get(name), p384.COORDINATE_BYTES)
    except (TokenFault, EncodingFault):
        raise KeyFault(f'must have "{name}": {p384.COORDINATE_BYTES} bytes in base64url') from None


def _halves(x: bytes, y: bytes, d: bytes | None) -> tuple[p384.PublicKey, p384.PrivateKey | None]:
    """Return the public key at ``x``, ``y``, and the private key of ``d`` if there is one; raises KeyFault."""
    try:
        public = p384.public_key(x, y)
        private = p384.private_key(d) if d else None
    except ValueError:
        raise KeyFault("is not a point of P-384") from None
    if private is not None and p384.point_of(private.public_key()) != (x, y):
        raise KeyFault('has a "d" that does not belong to its "x" and "y"')
    return public, private


def is_empty(variables: Mapping[str, Secret], directory: Path) -> bool:
    """Tell whether there is no platform or receiver key, nor anything that was meant as one."""
    found = key_sources.entries(variables, {}, directory)
    return not any(isinstance(entry, str) or entry.role in ROLES for entry in found)


def load(settings: Settings, trial: Path | None = None) -> tuple[Keyring, list[str]]:
    """Return the keyring of ``settings`` and all mistakes in it; opens each protected key once.

    A mistake is a line that names the variable or file and says what would be valid; it never holds key material. The
    folder ``trial`` holds keys with which a doctor tries the receiver.
    """
    found = list(_entries(settings))
    entries = [entry for entry in found if isinstance(entry, Entry)]
    ring, mistakes = _parsed(entries, settings)
    mistakes += [mistake for mistake in found if isinstance(mistake, str)]
    for role in ROLES:
        if not any(entry.role == role for entry in entries):
            mistakes.append(
                f"{role.upper()}_KEY: no {role} key at all; set it to a JWK, or put {role}-<kid>.json into "
                f"{settings.keys}"
            )
    if trial:
        ring.try_out(entry for entry in key_sources.entries({}, {}, trial, True) if isinstance(entry, Entry))
    return ring, mistakes


def load_sealing(settings: Settings) -> tuple[Keyring, list[str]]:
    """Return a keyring of only the sealing keys of ``settings``, and all mistakes in them."""
    found = list(_entries(settings))
    ring, mistakes = _parsed([one for one in found if isinstance(one, Entry) and one.role == "sealing"], settings)
    return ring, mistakes + [one for one in found if isinstance(one, str)]


def _entries(settings: Settings) -> Iterator[Entry | str]:
    variables = dict(settings.key_texts)
    if settings.sealing_key:
        variables[settings.sources.get("sealing_key", "STORAGE_SEALING_KEY")] = settings.sealing_key
    # systemd's folder may hold files that are no keys.
    shared = settings.keys == settings.credentials
    return key_sources.entries(variables, settings.paths, settings.keys, shared)


def _parsed(entries: Sequence[Entry], settings: Settings) -> tuple[Keyring, list[str]]:
    """Return the keyring of ``entries``, and all mistakes in them and in the permissions of their files."""
    found: dict[tuple[str, str], AnyKey] = {}
    sealing: list[SealingKey] = []
    mistakes: list[str] = []
    for entry in entries:
        try:
            text = passphrase.open_text(entry.text.text, settings.key_passphrase.text)
            if entry.role == "sealing":
                sealing += parse_keys(text, entry.source)
            else:
                key = parse_key(text, entry.role, entry.source, entry.tenant)
                _add(found, key if key.made is not None else replace(key, made=entry.written()))
        except (KeyFault, SealingFault) as fault:
            mistakes.append(f"{entry.source}: {fault}")
    ring = Keyring(found.values(), sealing)
    ring.protected = frozenset(entry.source for entry in entries if passphrase.is_protected(entry.text.text))
    ring.exposed = tuple(_exposures(entries, settings))
    if settings.insecure_keys == "refuse":
        mistakes += [f"{fault}; STORAGE_INSECURE_KEYS=warn only warns" for fault in ring.exposed]
    return ring, mistakes


def _exposures(entries: Sequence[Entry], settings: Settings) -> Iterator[str]:
    """Yield what is wrong with the permissions of the files of ``entries``, and of the passphrase's."""
    yield from filter(None, (entry.exposure() for entry in entries))
    source = settings.sources.get("key_passphrase", "")
    if source in settings.paths and (fault := files.check_private(settings.paths[source])):
        yield f"{source}: {fault}"


def _add(found: dict[tuple[str, str], AnyKey], key: AnyKey) -> None:
    """Add ``key`` to ``found``; the same key from two places serves the tenants of both. Raises KeyFault."""
    for other in found.values():
        if other.role != key.role and other.thumbprint == key.thumbprint:
            raise KeyFault(f"is the same key as {other.source}; platform and receiver keys must differ")
    name = (key.role, key.kid.lower())
    known = found.get(name)
    if known is None:
        found[name] = key
        return
    if known.thumbprint != key.thumbprint:
        raise KeyFault(f'has the same "kid" as {known.source} but is another key')
    both = None if known.tenants is None or key.tenants is None else known.tenants | key.tenants
    found[name] = replace(known, tenants=both)
