"""The running receiver: whether it is ready, and whether it uses the files and the environment as they are now."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families

from receiver import __version__
from receiver.admin.client import AdminClient
from receiver.doctor.findings import Finding, cause_text, fail, ok, warn
from receiver.doctor.subject import Subject
from receiver.keys.listing import ago
from receiver.network import tls
from receiver.process.running import Service, base_of
from receiver.settings import RELOADED, Settings, declared, read
from receiver.stores.urls.store_url import SERVERS

TOPIC = "service"
_RELOADS = 30.0  # seconds within which a running receiver uses files that have changed
_RESTART = "stop the receiver and start it again"
_SYSTEMD = "under systemd: receiver doctor --pid $(systemctl show -p MainPID --value UNIT)"
_FIXES = {
    "migrations": _RESTART,
    "workers": "look into its log: it says why a worker ended",
    "log": "start or unblock what reads the receiver's standard error, or free space on the disk of its log",
}
Samples = dict[str, list[tuple[dict[str, str], float]]]  # metric → labels and value of each sample


def check(subject: Subject) -> Iterator[Finding]:
    """Yield findings on the receiver that runs here."""
    service = subject.service
    if service is None:
        yield _missing(subject)
        return
    parts = [f"process {service.pid} at {', '.join(service.addresses)}", f"up {ago(int(service.started), time.time())}"]
    if service.admin is None:
        parts.append("its admin listener is off")
    else:
        admin = AdminClient(service.admin)
        readiness, problems = _readiness(admin)
        parts.append(readiness)
        yield from problems
        yield from _from_metrics(subject, service, admin)
    yield from _other_settings(subject, service)
    yield from _changed_files(subject, service)
    yield ok(TOPIC, ", ".join(parts))


def _missing(subject: Subject) -> Finding:
    base = base_of(subject.settings)
    if subject.pid is not None:
        message = f"process {subject.pid} is not the first process of a receiver that has a folder in {base}"
        return warn(TOPIC, message, _SYSTEMD)
    if subject.running:
        pids = ", ".join(str(one.pid) for one in subject.running)
        several = f"several receivers run here, and it is not clear which is meant: processes {pids}"
        message = f"{several}; none of them, or more than one, listens on {subject.settings.listen}"
        return warn(TOPIC, message, "receiver doctor --pid PID")
    message = f"no receiver that has its folder in {base} runs here"
    message += "" if os.geteuid() == 0 else "; only root and its own user can see another user's receiver"
    return warn(TOPIC, message, f"receiver serve; {_SYSTEMD}")


def _readiness(admin: AdminClient) -> tuple[str, list[Finding]]:
    """Return the readiness that ``admin`` reports, and a finding for each of its problems."""
    try:
        _, answer = admin.get_json("/readyz")
        status, checks = str(answer["status"]), dict(answer["checks"])
        messages = {name: (str(one["verdict"]), str(one["told"])) for name, one in checks.items()}
    except (OSError, KeyError, TypeError, ValueError) as cause:
        message = f"its admin listener, {admin.address}, does not answer: {cause_text(cause)}"
        return "readiness unknown", [fail(TOPIC, message, "look into its log; receiver health")]
    found = []
    if status == "draining":
        found.append(warn(TOPIC, "it is draining: it has been told to stop", "wait until it ends, and start it again"))
    for name, (verdict, text) in messages.items():
        judge = {"fail": fail, "warn": warn}.get(verdict)
        if judge:
            found.append(judge(TOPIC, f"/readyz, {name}: {text}", _FIXES.get(name, f"see {name}")))
    workers = messages.get("workers", ("", ""))[1]
    return f"{status}{f', {workers} workers'.replace(' run', '') if workers else ''}", found


def _from_metrics(subject: Subject, service: Service, admin: AdminClient) -> Iterator[Finding]:
    """Yield where the metrics of ``service`` show another version, key or certificate than there is here."""
    try:
        samples = _samples(admin)
    except (OSError, ValueError):
        return  # /readyz did not answer either, or the next run will see it
    for labels, _ in samples.get("receiver_build_info", []):
        if labels.get("version") != __version__:
            message = f"it runs version {labels.get('version')}, and this is {__version__}"
            yield warn(TOPIC, message, _RESTART)
    yield from _other_keys(subject, service, samples)
    terms = None if subject.is_invalid("STORAGE_TLS_CERT", "STORAGE_TLS_KEY") else tls.load(subject.settings)[0]
    shown = samples.get("receiver_certificate_expires_timestamp_seconds", [])
    if terms and shown and abs(shown[0][1] - terms.expires.timestamp()) > 1 and _is_settled(subject.settings.tls_cert):
        message = "it shows another certificate than the one in the file of STORAGE_TLS_CERT"
        yield warn(TOPIC, message, f"kill -HUP {service.pid}, and look into its log for why it kept the old one")


def _samples(admin: AdminClient) -> Samples:
    status, text = admin.get("/metrics")
    if status != 200:
        raise ValueError("no metrics")
    try:
        return {
            family.name: [(sample.labels, sample.value) for sample in family.samples]
            for family in text_string_to_metric_families(text.decode("utf-8", "replace"))
        }
    except Exception as cause:
        raise ValueError("no metrics") from cause  # from another program, which the parser does not expect


def _other_keys(subject: Subject, service: Service, samples: Samples) -> Iterator[Finding]:
    """Yield the keys that are here but not in force, and those in force but not here; metrics show keys with an age."""
    in_force = {(one["role"], one["kid"]) for one, _ in samples.get("receiver_key_made_timestamp_seconds", [])}
    ring = subject.ring
    here = {(key.role, key.kid.lower()): (key.made, key.source) for key in ring}
    here |= {("sealing", key.kid): (key.issued or None, key.source) for key in ring.sealing}
    absent = [name for name, (made, _) in here.items() if made is not None and name not in in_force]
    absent = [name for name in absent if _is_settled(here[name][1])]
    tried = " ".join(service.tried())
    gone = [name for name in in_force if name not in here and name[1] not in tried]
    gone = gone if _is_settled(str(subject.settings.keys)) and _is_settled(str(service.trial)) else []
    for what, names in (("does not use", absent), ("still accepts", gone)):
        if names and subject.pid is None and not in_force & here.keys():
            return  # all keys differ, so the settings do, and their own check reports that
        if names:
            message = f"it {what} {', '.join(f'{role} key {kid}' for role, kid in sorted(names))}"
            message += f"; {subject.key_mistakes[0]}" if subject.key_mistakes else ""
            fix = f"kill -HUP {service.pid}, and look into its log: after a mistake it keeps the old keys"
            yield warn(TOPIC, message, fix)


def _is_settled(path: str) -> bool:
    """Tell whether the file at ``path`` is old enough for a running receiver to have read it."""
    with suppress(OSError, ValueError):
        return time.time() - os.stat(path).st_mtime > _RELOADS
    return True


def _other_settings(subject: Subject, service: Service) -> Iterator[Finding]:
    """Yield which settings in the environment of ``service`` differ from those of the subject."""
    if subject.pid is not None or subject.environ is None:
        return
    ours, (theirs, mistakes) = subject.settings, read(subject.environ)
    names = [name for name in _differing(ours, theirs) if not any(one.startswith(name) for one in mistakes)]
    relative = not ours.keys.is_absolute() or any(
        one.kind not in SERVERS.values() and not os.path.isabs(one.path) for one in ours.store_urls
    )
    with suppress(OSError):
        if relative and not os.path.samefile(f"/proc/{service.pid}/cwd", "."):
            names.append("the working directory")
    if names:
        message = f"it was started with other settings than these: {', '.join(names)}"
        yield warn(TOPIC, message, f"receiver doctor --pid {service.pid}")


def _differing(ours: Settings, theirs: Settings) -> Iterator[str]:
    """Yield the names of settings that differ, but for systemd's credentials, of which each process has a copy."""
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


def _changed_files(subject: Subject, service: Service) -> Iterator[Finding]:
    """Yield the settings whose files were written after the start, and which only a restart reads again."""
    names = {one.metadata["name"] for one in declared()} - RELOADED
    late = []
    for source, path in subject.settings.paths.items():
        with suppress(OSError, ValueError):
            if source.removesuffix("_FILE") in names and os.stat(path).st_mtime > service.started:
                late.append(source)
    if late:
        yield warn(TOPIC, f"the files of {', '.join(late)} have changed since it was started", _RESTART)
