"""The path from the public address: whether it leads to a receiver, with which certificate, and how it changes the URL.

A receiver's reply to an unsigned load holds the path that it saw. The platform signs the path that it sends.
"""

import email.utils
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from receiver.doctor.checks.clock import Offset
from receiver.doctor.client import BROKEN, ReceiverClient, failure_message, path_seen, reply_message
from receiver.doctor.findings import Finding, fail, ok
from receiver.mock_platform.client import Answer
from receiver.mock_platform.keys import new_store

TOPIC = "proxy"
_NOT_REACHED = {502, 503, 504}
_UNCHANGED = "let the proxy pass the path on unchanged (nginx: proxy_pass without a path; HAProxy: no set-path)"
_EVERYTHING = "let the proxy pass everything under /api/storage/1 on"


@dataclass(frozen=True)
class Answers:
    """The answers to ``health`` and to an unsigned ``load``."""

    health: Answer
    load: Answer


@dataclass(frozen=True)
class Visit:
    """A visit to ``url``: its ``answers``, or the error that ended it.

    ``sent`` is the path of the load; ``offset`` is that of the other side's clock, if it told the time.
    """

    url: str
    sent: str
    answers: Answers | BaseException
    offset: Offset | None = None


def visit(url: str, context: ssl.SSLContext | None) -> Visit:
    """Visit ``url`` with the certificates of ``context``; this changes nothing there."""
    with closing(ReceiverClient(url, str(uuid.uuid4()), new_store(), context)) as client:
        sent = client.path_of(str(uuid.UUID(int=0)))
        try:
            began = time.time()
            health = client.health()
            offset = _offset(health, urlsplit(url).hostname or url, began)
            return Visit(url, sent, Answers(health, client.ask_unsigned()), offset)
        except BROKEN as cause:
            return Visit(url, sent, cause)


def _offset(answer: Answer, whom: str, began: float) -> Offset | None:
    """Return the offset of the clock that wrote the Date of ``answer``, which has whole seconds only."""
    try:
        date = email.utils.parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    ended = time.time()
    return Offset(f"the clock at {whom}", date + 0.5 - (began + ended) / 2, 0.5 + (ended - began) / 2)


def check(found: Visit) -> Iterator[Finding]:
    """Yield findings on the path from the public address to the receiver."""
    answers = found.answers
    if isinstance(answers, BaseException):
        yield fail(TOPIC, f"{found.url} cannot be reached: {failure_message(answers)}", _fix_for(answers))
        return
    problems = [*_health(found.url, answers.health), *_path(found, answers)]
    yield from problems
    if not problems:
        prefix = urlsplit(found.url).path.rstrip("/")
        restored = f"; its prefix {prefix} is put back into the path that is signed" if prefix else ""
        yield ok(TOPIC, f"{found.url} leads to a receiver, the path unchanged{restored}")


def _fix_for(cause: BaseException) -> str:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "append the issuer's certificate where TLS ends; your own authority: doctor --ca FILE"
    if isinstance(cause, ssl.SSLError):
        no_tls = "use http:// in the URL if there is no TLS"
        return f"{no_tls}; if the proxy asks for a certificate: doctor --client-cert FILE"
    return "check the name, that the proxy runs, and the firewalls between: curl -v URL/api/storage/1/health"


def _health(url: str, answer: Answer) -> Iterator[Finding]:
    if answer.status == 200 and answer.body.strip().replace(b" ", b"") == b'{"status":"ok"}':
        return
    message = f"{url}: health is answered with {reply_message(answer)}"
    if answer.status == 403 and path_seen(answer):
        fix = "add the proxy's address to STORAGE_TRUSTED_PROXIES, or this one to STORAGE_ALLOW_FROM"
        yield fail(TOPIC, message, fix)
    elif answer.status in _NOT_REACHED and path_seen(answer):
        yield fail(TOPIC, message, "see store")
    elif answer.status in _NOT_REACHED:
        fix = "let the proxy's upstream be the address on which the receiver listens (STORAGE_BIND)"
        yield fail(TOPIC, message, fix)
    elif answer.status == 200:
        yield fail(TOPIC, f"{url}: health is answered with 200, but not by a receiver", _EVERYTHING)
    elif answer.status != 404 or not path_seen(answer):
        yield fail(TOPIC, message, _EVERYTHING)


def _path(found: Visit, answers: Answers) -> Iterator[Finding]:
    """Yield how the path changes between the public address and the receiver."""
    status, seen = answers.load.status, path_seen(answers.load)
    if seen is None:
        if answers.health.status == 200:
            reply = reply_message(answers.load)
            message = f"{found.url}: a load is answered with {reply}, while health reaches a receiver"
            yield fail(TOPIC, message, f"{_EVERYTHING}, not health alone")
    elif status in {401, 404}:
        yield from _changed(found.sent, seen, status)
    elif status != answers.health.status:
        yield fail(TOPIC, f"{found.url}: a load is answered with {reply_message(answers.load)}", "see service")


def _changed(sent: str, seen: str, status: int) -> Iterator[Finding]:
    """Yield what the path ``sent`` has become when the receiver has ``seen`` it and answered with ``status``."""
    if status == 401 and seen == sent:
        return
    rest = "/api/" + sent.partition("/api/")[2]
    outside, inside = sent.removesuffix(rest), seen.removesuffix(rest)
    fix = f"STORAGE_PUBLIC_PREFIX={outside}, and restart the receiver"
    if status == 404 and seen == sent:
        yield fail(TOPIC, f"the proxy passes the prefix {outside} on, and the receiver does not know it", fix)
    elif status == 401 and seen.endswith(rest) and outside:
        message = f"the proxy removes {outside} from the path, which the platform signs, and the receiver"
        message += f" puts {inside} there instead" if inside else " does not put it back"
        yield fail(TOPIC, message, fix)
    elif status == 401 and seen.endswith(rest):
        message = f"the receiver expects {inside} before the path (STORAGE_PUBLIC_PREFIX), and the URL has none"
        yield fail(TOPIC, message, f"unset STORAGE_PUBLIC_PREFIX, or give the platform the URL with {inside}")
    else:
        yield fail(TOPIC, f"the path changes on the way: sent {sent}, seen {seen[:200]}", _UNCHANGED)
