"""The keys: whether they can serve, how old they are, who could use them, and which are no longer needed."""

import re
import shlex
import time
from collections.abc import Iterable, Iterator

from receiver.doctor.checks.configuration import is_loopback
from receiver.doctor.findings import Finding, fail, ok, warn
from receiver.doctor.subject import Subject
from receiver.keys.keyring import ROLES, Keyring, PlatformKey, ReceiverKey
from receiver.keys.listing import ago
from receiver.keys.usage import Uses
from receiver.settings import Settings, key_sources
from receiver.settings.key_sources import Entry
from receiver.stores.sealed import CLEAR, ROLE, UNREAD

TOPIC = "keys"
_DAY = 86_400
_OLD = 365 * _DAY  # seconds after which a key should be replaced
_UNUSED = 30 * _DAY  # seconds without use after which a key is probably forgotten, if others of its role are in use
_FIXES = (  # the pattern of a mistake, and its fix; {0} is the variable or file
    (r"everybody on this machine may use the private key in (.+) \(mode", "chmod o= {1}"),
    (
        r"no (\w+) key at all",
        "put {1}-<kid>.json, as the platform gave it, into STORAGE_KEYS; to try: receiver keys generate",
    ),
    (r"passphrase", "set STORAGE_KEY_PASSPHRASE_FILE to a file that holds the passphrase of {0}"),
    (r"cannot be read \((?:Permission|EACCES)", "chown it to the receiver's user: {0}"),
    (r"must be named|a folder of keys must be", "remove it, or rename it: {0}"),
    (r'another "kid" than its name says', "rename it to the kid in it: {0}"),
    (r"is the same key as", "remove one of the two: {0}"),
)
_HYPHENS = "sh and systemd drop names with hyphens: write PLATFORM_KEY_<kid> with underscores in the kid"


def check(subject: Subject, uses: Uses, now: float | None = None) -> Iterator[Finding]:
    """Yield findings on the keys; ``uses`` holds when each was used last, as the stores record it."""
    now = time.time() if now is None else now
    if subject.is_invalid("STORAGE_KEYS"):
        yield warn(TOPIC, "the directory of keys is not known: STORAGE_KEYS is invalid", "see settings")
    yield from _mistakes(subject)
    yield from _private_halves(subject.settings)
    yield from _one_sided(subject)
    yield from _aged(subject.ring, now)
    yield from _forgotten(subject.ring, uses, now)
    if not list(subject.ring):
        return
    # Where a content is sealed, the store names the key that is missing.
    is_sealed = any(role == ROLE and kid not in (CLEAR, UNREAD) for role, kid in uses)
    if not subject.ring.sealing and not is_sealed and not subject.is_invalid("STORAGE_KEYS", "STORAGE_SEALING_KEY"):
        message = "there is no sealing key: the store and its backups hold contents in the clear"
        yield warn(TOPIC, message, "receiver keys sealing; then, for stored states: receiver store reseal --stopped")
    yield ok(TOPIC, _summary(subject.ring, uses, now))


def _mistakes(subject: Subject) -> Iterator[Finding]:
    for mistake in subject.key_mistakes:
        if "key at all" not in mistake or not subject.is_invalid("STORAGE_KEYS"):
            yield fail(TOPIC, mistake, _fix_for(mistake), *([_HYPHENS] if "no platform key" in mistake else []))
    if subject.settings.insecure_keys == "warn":
        for exposed in subject.ring.exposed:
            yield warn(TOPIC, exposed, _fix_for(exposed))


def _fix_for(mistake: str) -> str:
    """Return the fix for a ``mistake`` that the keyring reports."""
    where = shlex.quote(mistake.partition(": ")[0])
    for pattern, fix in _FIXES:
        if match := re.search(pattern, mistake):
            return fix.format(where, *(shlex.quote(one) for one in match.groups()))
    return f"get it again from the platform, or remove it: {where}"


def _summary(ring: Keyring, uses: Uses, now: float) -> str:
    counts = {role: sum(key.role == role for key in ring) for role in ROLES}
    counts["sealing"] = len(list(ring.sealing))
    parts = [", ".join(f"{count} {role}" for role, count in counts.items() if count)]
    if made := [key.made for key in ring if key.made is not None]:
        parts.append(f"the oldest {ago(min(made), now)} old")
    if used := [used for (role, _), used in uses.items() if role in ROLES]:
        parts.append(f"used {ago(max(used), now)} ago")
    if ring.protected:
        parts.append(f"{len(ring.protected)} protected by a passphrase")
    return "; ".join(parts)


def _private_halves(settings: Settings) -> Iterator[Finding]:
    """Yield where the platform's private half is stored: anybody who has it can pose as the platform."""
    shared = settings.keys == settings.credentials
    for entry in key_sources.entries(settings.key_texts, settings.paths, settings.keys, shared):
        if isinstance(entry, Entry) and entry.role == "platform" and '"d"' in entry.text.text:
            message = f"{entry.source} holds the platform's private half, which the receiver never needs"
            yield warn(TOPIC, message, f"keep only the public half there, without the member d: {entry.source}")
    try:
        mocks = sorted(settings.keys.glob("**/mock-platform-*"))
    except OSError:
        mocks = []
    if mocks:
        if is_loopback(settings.listen.rpartition(":")[0]) and not settings.trusted_proxies:  # as make run has it
            yield ok(TOPIC, f"{mocks[0]}: test keys, at an address that only this machine reaches")
            return
        message = f"{mocks[0]}: test keys, whose holder can pose as the platform; not for production"
        files = " ".join(shlex.quote(str(path)) for path in mocks[:3])
        yield warn(TOPIC, message, f"install the keys that the platform gives you, then: rm {files}")


def _one_sided(subject: Subject) -> Iterator[Finding]:
    """Yield the tenants that the receiver cannot serve: a request needs a key of each role."""
    ring, settings = subject.ring, subject.settings
    named = {tenant for key in ring if key.tenants for tenant in key.tenants}
    for tenant in sorted({*named, *settings.tenants, *settings.tenant_stores}):
        has = [role for role in ROLES if any(key.role == role and key.serves(tenant) for key in ring)]
        if settings.tenants and tenant not in settings.tenants:
            message = f"tenant {tenant} has keys or a store, but STORAGE_TENANTS does not list it: it is refused"
            yield warn(TOPIC, message, f"add {tenant} to STORAGE_TENANTS, or remove its folder of keys")
        elif len(has) < len(ROLES) and list(ring) and not subject.key_mistakes:
            missing = next(role for role in ROLES if role not in has)
            message = f"tenant {tenant} has no {missing} key: all its requests are refused"
            yield fail(TOPIC, message, f"put {missing}-<kid>.json into {settings.keys}/{tenant}/")


def _aged(ring: Keyring, now: float) -> Iterator[Finding]:
    old = [key for key in ring if key.made is not None and now - key.made > _OLD]
    if old:
        message = f"{_names(old)}: older than a year"
        yield warn(TOPIC, message, "let the platform make a new pair and put it beside the old one (keys/README.md)")
    early = [key for key in ring if key.made is not None and key.made > now + _DAY]
    if early:
        yield warn(TOPIC, f"{_names(early)}: made in the future, or this clock is wrong", "see clock")


def _forgotten(ring: Keyring, uses: Uses, now: float) -> Iterator[Finding]:
    """Yield the keys that are not used although others of their role are."""
    for role in ROLES:
        used = {key.kid.lower(): uses.get((role, key.kid.lower()), 0) for key in ring if key.role == role}
        if not any(now - last < _UNUSED for last in used.values()):
            continue
        idle = [key for key in ring if key.role == role and now - max(used[key.kid.lower()], key.made or 0) > _UNUSED]
        if idle:
            files = " ".join(shlex.quote(key.source) for key in idle)
            message = f"{_names(idle)}: not used for a month, while another one was"
            yield warn(TOPIC, message, f"when the platform no longer has it, remove it: {files}")


def _names(keys: Iterable[PlatformKey | ReceiverKey]) -> str:
    return ", ".join(f"{key.role} key {key.kid}" for key in keys)
