"""The keys: whether they can serve, how old they are, who could use them, and which of them nobody needs."""

import re
import shlex
import time
from collections.abc import Iterable, Iterator

from receiver.commands.keys import ago
from receiver.doctor.case import Case
from receiver.doctor.configuration import is_loopback
from receiver.doctor.findings import Finding, fail, ok, warn
from receiver.keys.keyring import ROLES, Key, Keyring
from receiver.keys.usage import Uses
from receiver.settings import Settings, key_sources
from receiver.settings.key_sources import Entry

SUBJECT = "keys"
_DAY = 86_400
_OLD = 365 * _DAY  # seconds after which a key ought to be replaced
_UNUSED = 30 * _DAY  # seconds without use after which a key, beside others that are used, is probably a forgotten one
_MENDS = (  # what a mistake says, and what mends it; {0} is the variable or file
    (r"everybody on this machine may use the private key in (.+) \(mode", "chmod o= {1}"),
    (
        r"no (\w+) key at all",
        "put {1}-<kid>.json, as the platform gave it, into STORAGE_KEYS; to try: receiver keys generate",
    ),
    (r"passphrase", "set STORAGE_KEY_PASSPHRASE_FILE to a file that holds the passphrase of {0}"),
    (r"cannot be read \((?:Permission|EACCES)", "chown it to the receiver's user: {0}"),
    (r"must be named|a folder of keys must be", "take it away, or rename it: {0}"),
    (r'another "kid" than its name says', "rename it to the kid in it: {0}"),
    (r"is the same key as", "take one of the two away: {0}"),
)
_HYPHENS = "sh and systemd drop names with hyphens: write PLATFORM_KEY_<kid> with underscores in the kid"


def check(case: Case, uses: Uses, now: float | None = None) -> Iterator[Finding]:
    """Yield what there is to say of the keys; ``uses`` tells when each was used, as stores keep it."""
    now = time.time() if now is None else now
    if case.is_mistaken("STORAGE_KEYS"):
        yield warn(SUBJECT, "the directory of keys is not known: STORAGE_KEYS is wrong", "see settings")
    for mistake in case.key_mistakes:
        if "key at all" not in mistake or not case.is_mistaken("STORAGE_KEYS"):
            yield fail(SUBJECT, mistake, _mend_of(mistake), *([_HYPHENS] if "no platform key" in mistake else []))
    if case.settings.insecure_keys == "warn":
        for exposed in case.ring.exposed:
            yield warn(SUBJECT, exposed, _mend_of(exposed))
    yield from _private_halves(case.settings)
    yield from _one_sided(case)
    yield from _aged(case.ring, now)
    yield from _forgotten(case.ring, uses, now)
    if list(case.ring) and not case.ring.sealing and not case.is_mistaken("STORAGE_KEYS", "STORAGE_SEALING_KEY"):
        told = "there is no sealing key: contents rest in the clear, in the store and in its backups"
        yield warn(SUBJECT, told, "receiver keys sealing; then, for what is stored: receiver store reseal --stopped")
    if list(case.ring):
        yield ok(SUBJECT, _summary(case.ring, uses, now))


def _mend_of(mistake: str) -> str:
    """Return what mends a ``mistake`` as the keyring tells it."""
    where = shlex.quote(mistake.partition(": ")[0])
    for pattern, mend in _MENDS:
        if match := re.search(pattern, mistake):
            return mend.format(where, *(shlex.quote(one) for one in match.groups()))
    return f"get it again from the platform, or take it away: {where}"


def _summary(ring: Keyring, uses: Uses, now: float) -> str:
    counts = {role: sum(key.role == role for key in ring) for role in ROLES}
    counts["sealing"] = len(list(ring.sealing))
    told = [", ".join(f"{count} {role}" for role, count in counts.items() if count)]
    if made := [key.made for key in ring if key.made is not None]:
        told.append(f"the oldest of {ago(min(made), now)}")
    if used := [used for (role, _), used in uses.items() if role in ROLES]:
        told.append(f"used {ago(max(used), now)} ago")
    if ring.protected:
        told.append(f"{len(ring.protected)} behind a passphrase")
    return "; ".join(told)


def _private_halves(settings: Settings) -> Iterator[Finding]:
    """Yield where the platform's private half lies, with which anybody is the platform."""
    shared = settings.keys == settings.credentials
    for entry in key_sources.entries(settings.key_texts, settings.paths, settings.keys, shared):
        if isinstance(entry, Entry) and entry.role == "platform" and '"d"' in entry.text.text:
            told = f"{entry.source} holds the platform's private half, which the receiver never needs"
            yield warn(SUBJECT, told, f"leave only the public half there, without the member d: {entry.source}")
    try:
        mocks = sorted(settings.keys.glob("**/mock-platform-*"))
    except OSError:
        mocks = []
    if mocks:
        told = f"{mocks[0]}: keys to try with, whose holder can play the platform; not for production"
        if is_loopback(settings.listen.rpartition(":")[0]) and not settings.trusted_proxies:  # as make run has it
            yield ok(SUBJECT, f"{mocks[0]}: keys to try with, at an address that only this machine reaches")
            return
        files = " ".join(shlex.quote(str(path)) for path in mocks[:3])
        yield warn(SUBJECT, told, f"put in the keys that the platform gives you, then: rm {files}")


def _one_sided(case: Case) -> Iterator[Finding]:
    """Yield the tenants that could not be answered: a request takes a key of each role."""
    ring, settings = case.ring, case.settings
    named = {tenant for key in ring if key.tenants for tenant in key.tenants}
    for tenant in sorted({*named, *settings.tenants, *settings.tenant_stores}):
        has = [role for role in ROLES if any(key.role == role and key.serves(tenant) for key in ring)]
        if settings.tenants and tenant not in settings.tenants:
            told = f"tenant {tenant} has keys, or a store, and STORAGE_TENANTS does not list it: it is refused"
            yield warn(SUBJECT, told, f"add {tenant} to STORAGE_TENANTS, or take its folder of keys away")
        elif len(has) < len(ROLES) and list(ring) and not case.key_mistakes:
            missing = next(role for role in ROLES if role not in has)
            told = f"tenant {tenant} has no {missing} key: every request of it is refused"
            yield fail(SUBJECT, told, f"put {missing}-<kid>.json into {settings.keys}/{tenant}/")


def _aged(ring: Keyring, now: float) -> Iterator[Finding]:
    old = [key for key in ring if key.made is not None and now - key.made > _OLD]
    if old:
        told = f"{_names(old)}: older than a year"
        yield warn(SUBJECT, told, "let the platform make a new pair and put it beside the old one (keys/README.md)")
    early = [key for key in ring if key.made is not None and key.made > now + _DAY]
    if early:
        yield warn(SUBJECT, f"{_names(early)}: made in the future, or this clock is wrong", "see clock")


def _forgotten(ring: Keyring, uses: Uses, now: float) -> Iterator[Finding]:
    """Yield the keys that nobody uses although others of their role are in use."""
    for role in ROLES:
        used = {key.kid.lower(): uses.get((role, key.kid.lower()), 0) for key in ring if key.role == role}
        if not any(now - last < _UNUSED for last in used.values()):
            continue
        idle = [key for key in ring if key.role == role and now - max(used[key.kid.lower()], key.made or 0) > _UNUSED]
        if idle:
            files = " ".join(shlex.quote(key.source) for key in idle)
            told = f"{_names(idle)}: not used for a month, while another one was"
            yield warn(SUBJECT, told, f"when the platform no longer has it, take it away: {files}")


def _names(keys: Iterable[Key]) -> str:
    return ", ".join(f"{key.role} key {key.kid}" for key in keys)
