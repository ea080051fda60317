"""The settings: what is in force and where it came from, what is invalid, and what is valid but a trap."""

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from receiver.doctor.findings import Finding, fail, ok, warn
from receiver.doctor.subject import Subject
from receiver.network.addresses import Networks, address_of
from receiver.settings import Settings
from receiver.settings.display import DEFAULT, shown_rows
from receiver.stores.urls.store_url import SERVERS
from receiver.telemetry.logs import escape

TOPIC = "settings"
_UNKNOWN = re.compile(r"(?P<name>.+): there is no such setting; the nearest is (?P<nearest>\w+(?:-\w+)*)")
_TWICE = re.compile(r"(?P<name>\S+): (?P<other>\S+) is set as well")
_SERVICE_LINK = "enableServiceLinks: false"
_MARKS_OF_CONTAINERS = ("/.dockerenv", "/run/.containerenv")
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "quota period", or "max period"


def check(subject: Subject) -> Iterator[Finding]:
    """Yield findings on the settings."""
    for mistake in subject.mistakes:
        yield fail(TOPIC, mistake, _fix_for(mistake))
    for warning in subject.settings.warnings:
        yield warn(TOPIC, warning, _fix_for(warning))
    yield from _traps(subject.settings, os.environ)
    yield from _traps_of_keys(subject)
    given = [row for row in shown_rows(subject.settings) if row[2] != DEFAULT and not subject.is_invalid(row[0])]
    details = _details(given, subject.settings)
    if not subject.mistakes:
        where = f"process {subject.pid}" if subject.pid else "this environment"
        message = f"{where}: {len(given)} not the default" if given else f"{where}: all are the default"
        yield ok(TOPIC, message, *details)
    elif details:
        yield ok(TOPIC, "understood:", *details)


def _details(given: list[tuple[str, str, str]], settings: Settings) -> list[str]:
    """Return a line for each of the ``given`` settings (name, value, source), and how long stopping may take."""
    width = max((len(name) for name, _, _ in given), default=0)
    lines = [
        f"{name:{width}}  {value}{f'  (from {source})' if source not in ('', name) else ''}"
        for name, value, source in given
    ]
    if settings.drain:
        lines.append(f"stopping takes up to {settings.drain + settings.graceful_timeout:g} s: let")
        lines.append("terminationGracePeriodSeconds, TimeoutStopSec or stop_grace_period be longer")
    return lines


def _fix_for(mistake: str) -> str:
    """Return the fix for a ``mistake`` in the settings."""
    if _SERVICE_LINK in mistake:
        return f"{_SERVICE_LINK} in the pod's spec"
    if match := _UNKNOWN.match(mistake):
        name = shlex.quote(escape(match["name"]))
        return f"set {match['nearest']} instead of {name}, or: unset {name}"
    if match := _TWICE.match(mistake):
        return f"unset {match['name']}, or unset {match['other']}"
    name = mistake.partition(":")[0]
    return f"correct {name} where the receiver is started, or remove it: unset {name}"


def _traps(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield settings that are valid, but probably not intended."""
    name, _, _ = settings.listen.rpartition(":")
    if is_in_container(environ) and is_loopback(name):
        message = f"listens on {settings.listen} only: nobody outside of this container can reach it"
        yield warn(TOPIC, message, "unset STORAGE_BIND and set PORT=8080, or STORAGE_BIND=0.0.0.0:8080")
    have = processors()
    if settings.workers > 2 * have:
        message = f"{settings.workers} workers share {have} processor(s): more workers than processors add no speed"
        yield warn(TOPIC, message, f"STORAGE_WORKERS={have}")
    if settings.replay != "enforce":
        message = f"STORAGE_REPLAY={settings.replay}: a captured signature can be used for another change"
        yield warn(TOPIC, message, "unset STORAGE_REPLAY")
    if "0.0.0.0/0" in settings.trusted_proxies or "::/0" in settings.trusted_proxies:
        message = "STORAGE_TRUSTED_PROXIES holds every address: anybody can forge their address in X-Forwarded-For"
        yield warn(TOPIC, message, "STORAGE_TRUSTED_PROXIES=the addresses of your proxies")
    on_server = [one.variable for one in settings.all_stores.values() if one.url.kind in SERVERS.values()]
    if on_server and settings.pool_size < settings.threads:
        message = (
            f"{settings.threads} threads share {settings.pool_size} connections to the database: threads will wait"
        )
        yield warn(TOPIC, message, f"STORAGE_POOL_SIZE={settings.threads}")


def _traps_of_keys(subject: Subject) -> Iterator[Finding]:
    settings = subject.settings
    if settings.clear_states != "refuse" and subject.ring.sealing:
        message = f"STORAGE_CLEAR_STATES={settings.clear_states}: anybody who can write to the store can forge content"
        yield warn(TOPIC, message, "receiver store reseal, then unset STORAGE_CLEAR_STATES")
    if settings.insecure_keys != "refuse":
        message = "STORAGE_INSECURE_KEYS=warn: the receiver starts even if everybody can read its private keys"
        yield warn(TOPIC, message, "chmod o= the files of keys, then unset STORAGE_INSECURE_KEYS")


def is_in_container(environ: Mapping[str, str]) -> bool:
    """Tell whether this process runs in a container, as far as its engine says so."""
    if "KUBERNETES_SERVICE_HOST" in environ or environ.get("container"):
        return True
    return any(os.path.exists(mark) for mark in _MARKS_OF_CONTAINERS)


def processors(limit: Path = _CPU_MAX) -> int:
    """Return how many processors this process may use; ``limit`` is the file with its control group's quota."""
    may_use = len(os.sched_getaffinity(0))
    try:
        quota, period = limit.read_text().split()
        return min(may_use, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return may_use


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``, an address or localhost."""
    found = address_of(host.strip("[]"))
    return host == "localhost" or (found is not None and found in Networks(["127.0.0.0/8", "::1/128"]))
