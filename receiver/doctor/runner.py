"""Runs all checks, one after the other. A check that fails does not stop the others, and none ends in a traceback."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from receiver.doctor.checks import (
    certificates,
    clock,
    configuration,
    keys,
    machine,
    proxy,
    roundtrip,
    service,
    stores,
)
from receiver.doctor.direct import TLSOptions
from receiver.doctor.findings import Finding, cause_text, fail
from receiver.doctor.subject import Subject
from receiver.problems import Problem


@dataclass(frozen=True)
class Options:
    """What to do: look at the public ``url``, if any, with ``tls``; play a ``roundtrip``, perhaps for ``tenant``."""

    tls: TLSOptions
    url: str | None = None
    roundtrip: bool = False
    tenant: str | None = None


def examine(subject: Subject, options: Options) -> list[Finding]:
    """Return the findings of all checks on ``subject``."""
    return list(_findings(subject, options))


def _findings(subject: Subject, options: Options) -> Iterator[Finding]:
    examined: list[stores.Examined] = []
    if subject.has_store:
        yield from _guarded("store", lambda: examined.extend(stores.examine(subject.settings, subject.ring)))
    visits: list[proxy.Visit] = []
    if url := options.url:
        yield from _guarded("proxy", lambda: visits.append(proxy.visit(url, options.tls.context)))
    for topic, check in _checks(subject, options, examined, visits):
        yield from _guarded(topic, check)


def _checks(
    subject: Subject, options: Options, examined: list[stores.Examined], visits: list[proxy.Visit]
) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    """Yield the topic of each check, and the check."""
    uses: dict[tuple[str, str], int] = {}
    for one in examined:
        uses |= {key: max(used, uses.get(key, 0)) for key, used in one.uses.items()}
    offsets = [offset for offset in (*(one.offset for one in examined), *(one.offset for one in visits)) if offset]
    yield "settings", lambda: configuration.check(subject)
    yield "keys", lambda: keys.check(subject, uses)
    yield "clock", lambda: clock.check(subject.settings, offsets, clock.is_synchronised())
    yield "store", lambda: stores.check(subject, examined)
    yield "disk", lambda: machine.check_disk(subject)
    yield "permissions", lambda: machine.check_permissions(subject)
    yield "tls", lambda: certificates.check(subject, options.tls.context)
    yield "service", lambda: service.check(subject)
    yield "proxy", lambda: (finding for one in visits for finding in proxy.check(one))
    yield "versions", lambda: machine.check_versions(subject)
    if options.roundtrip:
        yield "roundtrip", lambda: roundtrip.play(subject, options.tls, options.url, options.tenant)


def _guarded(topic: str, check: Callable[[], Iterable[Finding] | None]) -> Iterator[Finding]:
    """Yield what ``check`` finds; if it raises, a finding that says so."""
    try:
        yield from check() or ()
    except (Problem, OSError) as cause:
        message = cause.cause if isinstance(cause, Problem) else cause_text(cause)
        yield fail(topic, f"this check could not be made: {message}", "see the other findings first")
    except Exception as defect:  # noqa: BLE001 - a defect in one check must not stop the others
        place = traceback.extract_tb(defect.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
        message = f"a defect of the doctor: {type(defect).__name__} at {where}"
        yield fail(topic, message, "report it with what receiver doctor --json prints")
