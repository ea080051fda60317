"""The way from the public address: whether it leads to a receiver, by which certificate, and what becomes of the path.

A receiver's reply to a load that nobody signed tells the path that it saw. The platform signs the path that it sends.
"""

import email.utils
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from receiver.doctor.clock import Offset
from receiver.doctor.findings import Finding, fail, ok
from receiver.doctor.line import BROKEN, Line, said, seen_path, told_broken
from receiver.mock_platform.client import Answer

SUBJECT = "proxy"
_NOT_REACHED = {502, 503, 504}
_UNCHANGED = "let the proxy pass the path on as it is (nginx: proxy_pass without a path; HAProxy: no set-path)"


@dataclass(frozen=True)
class Visit:
    """What came of going to ``url``: the answers to ``health`` and to an unsigned ``load``, or what was ``broken``.

    ``sent`` is the path of the latter; ``offset`` is that of the clock on the way, where it was told.
    """

    url: str
    sent: str = ""
    health: Answer | None = None
    load: Answer | None = None
    broken: BaseException | None = None
    offset: Offset | None = None


def visit(url: str, context: ssl.SSLContext | None) -> Visit:
    """Return what comes of going to ``url``, with the certificates of ``context``; nothing there is changed."""
    with closing(Line(url, str(uuid.uuid4()), None, context)) as line:
        sent = line.path_of(str(uuid.UUID(int=0)))
        try:
            began = time.time()
            health = line.health()
            offset = _offset(health, urlsplit(url).hostname or url, began)
            return Visit(url, sent, health, line.ask_unsigned(), offset=offset)
        except BROKEN as cause:
            return Visit(url, sent, broken=cause)


def _offset(answer: Answer, whom: str, began: float) -> Offset | None:
    """Return the offset of the clock that wrote the Date of ``answer``, which tells whole seconds."""
    try:
        told = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    ended = time.time()
    return Offset(f"the clock at {whom}", told + 0.5 - (began + ended) / 2, 0.5 + (ended - began) / 2)


def check(found: Visit) -> Iterator[Finding]:
    """Yield what there is to say of the way to the receiver from outside."""
    if found.broken is not None:
        yield fail(SUBJECT, f"{found.url} cannot be reached: {told_broken(found.broken)}", _mend_of(found.broken))
        return
    problems = [*_health(found), *_path(found)]
    yield from problems
    if not problems:
        prefix = urlsplit(found.url).path.rstrip("/")
        told = f"; its prefix {prefix} comes back into the path that is signed" if prefix else ""
        yield ok(SUBJECT, f"{found.url} leads to a receiver, the path as it was sent{told}")


def _mend_of(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "append the issuer's certificate where TLS ends; your own authority: doctor --ca FILE"
    if isinstance(cause, ssl.SSLError):
        return (
            "begin the URL with http:// if there is no TLS; a proxy that wants a certificate: doctor --client-cert FILE"
        )
    return "see that the name is known, the proxy runs, and no firewall is between: curl -v URL/api/storage/1/health"


def _health(found: Visit) -> Iterator[Finding]:
    answer = found.health
    if answer.status == 200 and answer.body.strip().replace(b" ", b"") == b'{"status":"ok"}':
        return
    told = f"{found.url}: health is answered with {said(answer)}"
    if answer.status == 403 and seen_path(answer):
        yield fail(
            SUBJECT, told, "add the proxy's address to STORAGE_TRUSTED_PROXIES, or this one to STORAGE_ALLOW_FROM"
        )
    elif answer.status in _NOT_REACHED and seen_path(answer):
        yield fail(SUBJECT, told, "see store")
    elif answer.status in _NOT_REACHED:
        yield fail(
            SUBJECT, told, "let the proxy's upstream be the address on which the receiver listens (STORAGE_BIND)"
        )
    elif answer.status == 200:
        told = f"{found.url}: health is answered with 200, but not by a receiver"
        yield fail(SUBJECT, told, "let the proxy pass everything under /api/storage/1 on")
    elif answer.status != 404 or not seen_path(answer):
        yield fail(SUBJECT, told, "let the proxy pass everything under /api/storage/1 on")


def _path(found: Visit) -> Iterator[Finding]:
    """Yield what becomes of the path on the way."""
    status, seen, sent = found.load.status, seen_path(found.load), found.sent
    if seen is None:
        if found.health.status == 200:
            told = f"{found.url}: a load is answered with {said(found.load)}, while health reaches a receiver"
            yield fail(SUBJECT, told, "let the proxy pass everything under /api/storage/1 on, not health alone")
        return
    if status == 401 and seen == sent:
        return
    rest = "/api/" + sent.partition("/api/")[2]
    outside, inside = sent.removesuffix(rest), seen.removesuffix(rest)
    mend = f"STORAGE_PUBLIC_PREFIX={outside}, and restart the receiver"
    if status == 404 and seen == sent:
        yield fail(SUBJECT, f"the prefix {outside} is passed on, and the receiver does not know it", mend)
    elif status == 401 and seen.endswith(rest) and outside:
        told = f"the proxy takes {outside} off the path, which the platform signs, and the receiver"
        told += f" puts {inside} there instead" if inside else " does not put it back"
        yield fail(SUBJECT, told, mend)
    elif status == 401 and seen.endswith(rest):
        told = f"the receiver expects {inside} before the path (STORAGE_PUBLIC_PREFIX), and the URL has none"
        yield fail(SUBJECT, told, f"unset STORAGE_PUBLIC_PREFIX, or give the platform the URL with {inside}")
    elif status in {401, 404}:
        yield fail(SUBJECT, f"the path is changed on the way: sent {sent}, seen {seen[:200]}", _UNCHANGED)
    elif status != found.health.status:
        yield fail(SUBJECT, f"{found.url}: a load is answered with {said(found.load)}", "see service")
