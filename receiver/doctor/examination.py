"""All checks, one after the other: whatever becomes of one, the others are done, and nothing ends in a traceback."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from receiver.doctor import certificates, clock, configuration, keys, machine, proxy, roundtrip, service, stores
from receiver.doctor.case import Case
from receiver.doctor.direct import Way
from receiver.doctor.findings import Finding, fail, told_cause
from receiver.problems import Problem

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What is asked for: the public ``url``, if any, by which ``way``; a ``roundtrip``, perhaps for ``tenant``."""

    way: Way
    url: str | None = None
    roundtrip: bool = False
    tenant: str | None = None


def examine(case: Case, wanted: Options) -> list[Finding]:
    """Return what there is to say of ``case``."""
    return list(_findings(case, wanted))


def _findings(case: Case, wanted: Options) -> Iterator[Finding]:
    examined: list[stores.Examined] = []
    if case.has_store:
        yield from _guarded("store", lambda: examined.extend(stores.examine(case.settings, case.ring)))
    visits: list[proxy.Visit] = []
    if wanted.url:
        yield from _guarded("proxy", lambda: visits.append(proxy.visit(wanted.url, wanted.way.context)))
    uses: dict[tuple[str, str], int] = {}
    for one in examined:
        uses |= {key: max(used, uses.get(key, 0)) for key, used in one.uses.items()}
    offsets = [one.offset for one in [*examined, *visits] if one.offset]
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("settings", lambda: configuration.check(case)),
        ("keys", lambda: keys.check(case, uses)),
        ("clock", lambda: clock.check(case.settings, offsets, clock.is_synchronised())),
        ("store", lambda: stores.check(case, examined)),
        ("disk", lambda: machine.check_disk(case)),
        ("permissions", lambda: machine.check_permissions(case)),
        ("tls", lambda: certificates.check(case, wanted.way.context)),
        ("service", lambda: service.check(case)),
        ("proxy", lambda: (finding for one in visits for finding in proxy.check(one))),
        ("versions", lambda: machine.check_versions(case)),
    ]
    if wanted.roundtrip:
        checks.append(("roundtrip", lambda: roundtrip.play(case, wanted.way, wanted.url, wanted.tenant)))
    for subject, check in checks:
        yield from _guarded(subject, check)


def _guarded(subject: str, check: Callable[[], Iterable[Finding] | None]) -> Iterator[Finding]:
    """Yield what ``check`` finds, and that it could not go on where it fails itself."""
    try:
        yield from check() or ()
    except (Problem, OSError) as cause:
        told = cause.cause if isinstance(cause, Problem) else told_cause(cause)
        yield fail(subject, f"this could not be looked at: {told}", "see the other findings first")
    except Exception as defect:
        place = traceback.extract_tb(defect.__traceback__)[-1]
        told = f"a defect of the doctor: {type(defect).__name__} at {place.filename.rpartition('/')[2]}:{place.lineno}"
        yield fail(subject, told, "report it with what receiver doctor --json prints")
