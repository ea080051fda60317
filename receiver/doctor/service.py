"""The running receiver: whether it is ready, and has taken what lies in the files and the environment now."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families

from receiver import __version__
from receiver.admin.client import AdminClient
from receiver.commands.keys import ago
from receiver.doctor.case import Case
from receiver.doctor.findings import Finding, fail, ok, told_cause, warn
from receiver.network import tls
from receiver.process.running import Service, base_of
from receiver.settings import Settings, declared, read
from receiver.stores.urls.store_url import SERVERS

SUBJECT = "service"
_TAKES = 30.0  # seconds within which a running receiver takes files that have changed
_TAKEN_ANEW = {"STORAGE_SEALING_KEY", "STORAGE_KEY_PASSPHRASE"}
_AGAIN = "stop the receiver and start it again"
_SYSTEMD = "under systemd: receiver doctor --pid $(systemctl show -p MainPID --value UNIT)"
_MENDS = {
    "migrations": _AGAIN,
    "workers": "look into its log: a worker that ends is told there",
    "log": "start or unblock what reads the receiver's standard error, or make room on the disk of its log",
}
Samples = dict[str, list[tuple[dict[str, str], float]]]  # name → labels and value of each


def check(case: Case) -> Iterator[Finding]:
    """Yield what there is to say of the receiver that runs here."""
    service = case.service
    if service is None:
        yield _missing(case)
        return
    told = [f"process {service.pid} at {', '.join(service.addresses)}", f"up {ago(int(service.started), time.time())}"]
    if service.admin is None:
        told.append("its admin listener is off")
    else:
        admin = AdminClient(service.admin)
        readiness, problems = _readiness(admin)
        told.append(readiness)
        yield from problems
        yield from _of_figures(case, service, admin)
    yield from _other_settings(case, service)
    yield from _changed_files(case, service)
    yield ok(SUBJECT, ", ".join(told))


def _missing(case: Case) -> Finding:
    base = base_of(case.settings)
    if case.pid is not None:
        told = f"process {case.pid} is not the first process of a receiver: none that has a folder in {base}"
        return warn(SUBJECT, told, _SYSTEMD)
    if case.running:
        pids = ", ".join(str(one.pid) for one in case.running)
        told = f"of the receivers that run here it is not clear which is meant: processes {pids}; none, or more than"
        return warn(SUBJECT, f"{told} one, listens on {case.settings.listen}", "receiver doctor --pid PID")
    told = f"none runs here that has its folder in {base}"
    told += "" if os.geteuid() == 0 else "; another user's is seen by that user and by root alone"
    return warn(SUBJECT, told, f"receiver serve; {_SYSTEMD}")


def _readiness(admin: AdminClient) -> tuple[str, list[Finding]]:
    """Return the readiness that ``admin`` reports, and a finding for each of its problems."""
    try:
        _, answer = admin.get_json("/readyz")
        status, checks = str(answer["status"]), dict(answer["checks"])
        told = {name: (str(one["verdict"]), str(one["told"])) for name, one in checks.items()}
    except (OSError, KeyError, TypeError, ValueError) as cause:
        seen = f"its admin listener, {admin.address}, does not answer: {told_cause(cause)}"
        return "readiness unknown", [fail(SUBJECT, seen, "look into its log; receiver health")]
    found = []
    if status == "draining":
        found.append(warn(SUBJECT, "it drains: somebody has told it to stop", "wait for its end, and start it again"))
    for name, (verdict, text) in told.items():
        judge = {"fail": fail, "warn": warn}.get(verdict)
        if judge:
            found.append(judge(SUBJECT, f"/readyz, {name}: {text}", _MENDS.get(name, f"see {name}")))
    workers = told.get("workers", ("", ""))[1]
    return f"{status}{f', {workers} workers'.replace(' run', '') if workers else ''}", found


def _of_figures(case: Case, service: Service, admin: AdminClient) -> Iterator[Finding]:
    """Yield what the figures of ``service`` tell: other versions, keys and certificates than those that lie here."""
    try:
        figures = _figures(admin)
    except (OSError, ValueError):
        return  # /readyz was not answered either, or will be next time
    for labels, _ in figures.get("receiver_build_info", []):
        if labels.get("version") != __version__:
            told = f"it runs version {labels.get('version')}, and this is {__version__}"
            yield warn(SUBJECT, told, _AGAIN)
    yield from _other_keys(case, service, figures)
    terms = None if case.is_mistaken("STORAGE_TLS_CERT", "STORAGE_TLS_KEY") else tls.load(case.settings)[0]
    shown = figures.get("receiver_certificate_expires_timestamp_seconds", [])
    if terms and shown and abs(shown[0][1] - terms.expires.timestamp()) > 1 and _is_settled(case.settings.tls_cert):
        told = "it shows another certificate than the file of STORAGE_TLS_CERT holds"
        yield warn(SUBJECT, told, f"kill -HUP {service.pid}, and look into its log for why it kept the old one")


def _figures(admin: AdminClient) -> Samples:
    status, text = admin.get("/metrics")
    if status != 200:
        raise ValueError("no figures")
    try:
        return {
            family.name: [(sample.labels, sample.value) for sample in family.samples]
            for family in text_string_to_metric_families(text.decode("utf-8", "replace"))
        }
    except Exception as cause:  # what answers need be no receiver, and the parser expects one
        raise ValueError("no figures") from cause


def _other_keys(case: Case, service: Service, figures: Samples) -> Iterator[Finding]:
    """Yield the keys that lie here and are not in force, and the other way round; figures tell those with an age."""
    in_force = {(one["role"], one["kid"]) for one, _ in figures.get("receiver_key_made_timestamp_seconds", [])}
    ring = case.ring
    lying = {(key.role, key.kid.lower()): (key.made, key.source) for key in ring}
    lying |= {("sealing", key.kid): (key.issued or None, key.source) for key in ring.sealing}
    absent = [name for name, (made, _) in lying.items() if made is not None and name not in in_force]
    absent = [name for name in absent if _is_settled(lying[name][1])]
    tried = " ".join(service.tried())
    gone = [name for name in in_force if name not in lying and name[1] not in tried]
    gone = gone if _is_settled(str(case.settings.keys)) and _is_settled(str(service.trial)) else []
    for what, names in (("has not taken", absent), ("still accepts", gone)):
        if names and case.pid is None and not in_force & lying.keys():
            return  # other keys altogether: other settings, which is told by those
        if names:
            told = f"it {what} {', '.join(f'{role} key {kid}' for role, kid in sorted(names))}"
            told += f"; {case.key_mistakes[0]}" if case.key_mistakes else ""
            yield warn(SUBJECT, told, f"kill -HUP {service.pid}, and look into its log: a mistake keeps the old keys")


def _is_settled(path: str) -> bool:
    """Tell whether the file at ``path`` has lain there for as long as a running receiver needs to take it."""
    with suppress(OSError, ValueError):
        return time.time() - os.stat(path).st_mtime > _TAKES
    return True


def _other_settings(case: Case, service: Service) -> Iterator[Finding]:
    """Yield in which settings the environment of ``service`` differs from the one that was looked at."""
    if case.pid is not None or case.environ is None:
        return
    ours, (theirs, mistakes) = case.settings, read(case.environ)
    names = [name for name in _differing(ours, theirs) if not any(one.startswith(name) for one in mistakes)]
    relative = not ours.keys.is_absolute() or any(
        one.kind not in SERVERS.values() and not os.path.isabs(one.path) for one in ours.store_urls
    )
    with suppress(OSError):
        if relative and not os.path.samefile(f"/proc/{service.pid}/cwd", "."):
            names.append("the folder that it works in")
    if names:
        told = f"it was started with other settings than these: {', '.join(names)}"
        yield warn(SUBJECT, told, f"receiver doctor --pid {service.pid}")


def _differing(ours: Settings, theirs: Settings) -> Iterator[str]:
    """Yield the names of settings that are not the same; of systemd's credentials each has copies of its own."""
    for one in declared():
        mine, other = getattr(ours, one.name), getattr(theirs, one.name)
        copies = mine == ours.credentials and other == theirs.credentials
        if mine != other and not copies and not _is_of_credentials(ours, ours.sources.get(one.name, "")):
            yield one.metadata["name"]
    keys = sorted(theirs.key_texts.keys() ^ ours.key_texts.keys())
    yield from (name for name in keys if not _is_of_credentials(ours, name))
    if theirs.tenant_stores != ours.tenant_stores:
        yield "STORAGE_TENANT_..."


def _is_of_credentials(settings: Settings, source: str) -> bool:
    path = settings.paths.get(source, "")
    return settings.credentials is not None and path.startswith(f"{settings.credentials}/")


def _changed_files(case: Case, service: Service) -> Iterator[Finding]:
    """Yield the settings whose files were written after the start, and which are not taken while it runs."""
    names = {one.metadata["name"] for one in declared()} - _TAKEN_ANEW
    late = []
    for source, path in case.settings.paths.items():
        with suppress(OSError, ValueError):
            if source.removesuffix("_FILE") in names and os.stat(path).st_mtime > service.started:
                late.append(source)
    if late:
        yield warn(SUBJECT, f"the files of {', '.join(late)} have changed since it was started", _AGAIN)
