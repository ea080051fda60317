"""The settings: what is in force and where it came from, what cannot be, and what is a trap."""

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from receiver.doctor.case import Case
from receiver.doctor.findings import Finding, fail, ok, warn
from receiver.network.addresses import Networks, address_of
from receiver.settings import Settings
from receiver.settings.display import DEFAULT, shown_rows
from receiver.stores.urls.store_url import SERVERS
from receiver.telemetry.logs import escape

SUBJECT = "settings"
_UNKNOWN = re.compile(r"(?P<name>.+): there is no such setting; the nearest is (?P<nearest>\w+(?:-\w+)*)")
_TWICE = re.compile(r"(?P<name>\S+): (?P<other>\S+) is set as well")
_SERVICE_LINK = "enableServiceLinks: false"
_MARKS_OF_CONTAINERS = ("/.dockerenv", "/run/.containerenv")
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "quota period", or "max period"


def check(case: Case) -> Iterator[Finding]:
    """Yield what there is to say of the settings."""
    for mistake in case.mistakes:
        yield fail(SUBJECT, mistake, _mend_of(mistake))
    for warning in case.settings.warnings:
        yield warn(SUBJECT, warning, _mend_of(warning))
    yield from _traps(case.settings, os.environ)
    yield from _traps_of_keys(case)
    given = [row for row in shown_rows(case.settings) if row[2] != DEFAULT and not case.is_mistaken(row[0])]
    width = max((len(name) for name, _, _ in given), default=0)
    details = [
        f"{name:{width}}  {value}{f'  (from {source})' if source not in ('', name) else ''}"
        for name, value, source in given
    ]
    whose = f"process {case.pid}" if case.pid else "this environment"
    seen = f"{whose}: {len(given)} not the default" if given else f"{whose}: all are the default"
    if case.settings.drain:
        stop = f"{case.settings.drain + case.settings.graceful_timeout:g}"
        details.append(f"stopping takes up to {stop} s: terminationGracePeriodSeconds, TimeoutStopSec or")
        details.append("stop_grace_period must be longer")
    if not case.mistakes:
        yield ok(SUBJECT, seen, *details)
    elif details:
        yield ok(SUBJECT, "understood:", *details)


def _mend_of(mistake: str) -> str:
    """Return what mends a ``mistake`` as the settings tell it."""
    if _SERVICE_LINK in mistake:
        return f"{_SERVICE_LINK} in the pod's spec"
    if match := _UNKNOWN.match(mistake):
        name = shlex.quote(escape(match["name"]))
        return f"set {match['nearest']} instead of {name}, or: unset {name}"
    if match := _TWICE.match(mistake):
        return f"unset {match['name']}, or unset {match['other']}"
    name = mistake.partition(":")[0]
    return f"correct {name} where the receiver is started, or take it away: unset {name}"


def _traps(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is valid, but hardly meant."""
    name, _, _ = settings.listen.rpartition(":")
    if is_in_container(environ) and is_loopback(name):
        told = f"listens on {settings.listen} only, and nobody outside of this container gets there"
        yield warn(SUBJECT, told, "unset STORAGE_BIND and set PORT=8080, or STORAGE_BIND=0.0.0.0:8080")
    have = processors()
    if settings.workers > 2 * have:
        told = f"{settings.workers} workers share {have} processor(s): more of them compute no more"
        yield warn(SUBJECT, told, f"STORAGE_WORKERS={have}")
    if settings.replay != "enforce":
        told = f"STORAGE_REPLAY={settings.replay}: a captured signature can be used for another change"
        yield warn(SUBJECT, told, "unset STORAGE_REPLAY")
    if "0.0.0.0/0" in settings.trusted_proxies or "::/0" in settings.trusted_proxies:
        told = "STORAGE_TRUSTED_PROXIES holds every address: anybody can say in X-Forwarded-For who they are"
        yield warn(SUBJECT, told, "STORAGE_TRUSTED_PROXIES=the addresses of your proxies")
    on_server = [one.variable for one in settings.all_stores.values() if one.url.kind in SERVERS.values()]
    if on_server and settings.pool_size < settings.threads:
        told = f"{settings.threads} threads share {settings.pool_size} connections to the database, and wait for them"
        yield warn(SUBJECT, told, f"STORAGE_POOL_SIZE={settings.threads}")


def _traps_of_keys(case: Case) -> Iterator[Finding]:
    settings = case.settings
    if settings.clear_states != "refuse" and case.ring.sealing:
        told = f"STORAGE_CLEAR_STATES={settings.clear_states}: who can write to the store can slip in content"
        yield warn(SUBJECT, told, "receiver store reseal, then unset STORAGE_CLEAR_STATES")
    if settings.insecure_keys != "refuse":
        told = "STORAGE_INSECURE_KEYS=warn: private keys that everybody can read do not stop a start"
        yield warn(SUBJECT, told, "chmod o= the files of keys, then unset STORAGE_INSECURE_KEYS")


def is_in_container(environ: Mapping[str, str]) -> bool:
    """Tell whether this process runs in a container, as far as its engine says so."""
    said = "KUBERNETES_SERVICE_HOST" in environ or environ.get("container")
    return bool(said) or any(os.path.exists(mark) for mark in _MARKS_OF_CONTAINERS)


def processors(limit: Path = _CPU_MAX) -> int:
    """Return how many processors this process may use; ``limit`` is where its group's quota stands."""
    may_use = len(os.sched_getaffinity(0))
    try:
        quota, period = limit.read_text().split()
        return min(may_use, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return may_use


def is_loopback(host: str) -> bool:
    """Return whether ``host``, an address or localhost, is reached from this machine only."""
    found = address_of(host.strip("[]"))
    return host == "localhost" or (found is not None and found in Networks(["127.0.0.0/8", "::1/128"]))
