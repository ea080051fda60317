"""``--roundtrip``: a save, a load and a delete, signed and sealed as the platform does, with keys made for it alone."""

import contextlib
import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from jwcrypto.common import JWException

from receiver.doctor.case import Case
from receiver.doctor.direct import Closed, Way, direct
from receiver.doctor.findings import Finding, fail, ok, told_cause
from receiver.doctor.line import BROKEN, Line, said, seen_path, told_broken
from receiver.doctor.trial import trial
from receiver.mock_platform.client import BASE, Answer
from receiver.mock_platform.flow_states import FlowRun, ticks
from receiver.mock_platform.keys import StoreKeys, new_store
from receiver.mock_platform.tokens import ReplyRefused
from receiver.settings import Settings

SUBJECT = "roundtrip"
_PATIENCE = 15.0  # seconds in which a worker has taken the keys
_LITTLE = 5.0  # seconds when one has, so that the others soon will; or when it is known that none can
_LIFE = timedelta(minutes=10)  # of the state, if it is left behind
_LARGE = 3 << 20  # bytes of a body that common proxies refuse unless told
_UNSIGNED = "a load without a signature"
_PASSING = "let the proxy pass GET, POST and DELETE on, with all that is under /api/storage/1"
_HEADERS = "let the proxy pass the headers X-ManyWho-... on"


class _Stop(Exception):
    """The trial is over: what was ``seen``, and what mends it."""

    def __init__(self, seen: str, mend: str):
        self.seen, self.mend = seen, mend
        super().__init__(seen)


def play(case: Case, way: Way, url: str | None, tenant: str | None) -> Iterator[Finding]:
    """Play against the receiver that runs, at ``url`` if there is one; ``way`` says who this is where TLS asks."""
    service = case.service
    if service is None:
        yield fail(SUBJECT, "the receiver that runs here is not known, so that nothing can be tried", "see service")
        return
    keys = new_store()
    tenant = tenant or next(iter(sorted(case.settings.tenants)), None) or str(uuid.uuid4())
    try:
        with trial(service, tenant, keys):
            found = _played(case, way, url, tenant, keys)
    except OSError as cause:
        told = f"no keys can be put into {service.trial}: {told_cause(cause)}"
        found = fail(SUBJECT, told, "run doctor as the receiver's user, or as root")
    yield found


def _played(case: Case, way: Way, url: str | None, tenant: str, keys: StoreKeys) -> Finding:
    began = time.monotonic()
    deadline = began + (_LITTLE if case.mistakes or case.key_mistakes else _PATIENCE)
    with contextlib.ExitStack() as closing:
        try:
            near = _near(case, way, url, tenant, keys)
            if near:
                closing.callback(near.close)
                _await_keys(near, deadline, case)
                deadline = time.monotonic() + _LITTLE
            taken = time.monotonic() - began
            far = Line(url, tenant, keys, way.context) if url else near
            closing.callback(far.close)
            steps = _Steps(far, near or far, deadline, url is not None, case.settings)
            steps.run()
        except _Stop as stop:
            return fail(SUBJECT, stop.seen, stop.mend)
    told = f"a state was saved, loaded, compared and deleted {f'through {url}' if url else 'at the receiver itself'}"
    times = [f"keys taken in {taken:.1f} s", *(f"{name} {ms:.0f} ms" for name, ms in steps.times)]
    return ok(SUBJECT, told, ", ".join(times), f"tenant {tenant}")


def _near(case: Case, way: Way, url: str | None, tenant: str, keys: StoreKeys) -> Line | None:
    """Return the line to the receiver itself, None if only a ``url`` leads there; raises _Stop if neither does."""
    try:
        return direct(case, way, tenant, keys)
    except Closed as closed:
        if url is None:
            raise _Stop(str(closed), closed.mend) from None
        return None


def _await_keys(line: Line, deadline: float, case: Case) -> None:
    """Return when the receiver at the other end of ``line`` knows its keys, and sign for the path that it sees."""
    try:
        seen = seen_path(line.ask_unsigned())
        line.signed = (seen or "").partition(BASE)[0]
        answer = _until_known(line, lambda: line.load(str(uuid.uuid4())), deadline)
    except BROKEN as cause:
        told = f"the receiver itself cannot be called: {told_broken(cause)}"
        raise _Stop(told, "a certificate that it has not taken yet: kill -HUP its process; see service") from None
    if answer.status == 401:
        wrong = [*case.mistakes, *case.key_mistakes]
        told = "the receiver has not taken the keys of the trial"
        told += f", since a mistake keeps the old ones: {wrong[0]}" if wrong else f" within {_PATIENCE:g} s"
        raise _Stop(told, "see settings and keys" if wrong else "look into its log for why it kept the old ones")
    if answer.status != 404 or seen_path(answer) is None:
        raise _Stop(
            f"a load of a state that is not there is answered with {said(answer)}",
            _mend_of("load", answer, case.settings),
        )


def _until_known(line: Line, ask: Callable[[], Answer], deadline: float) -> Answer:
    """Return the first answer to ``ask`` that is none of a worker, or another receiver, that lacks the keys."""
    while True:
        answer = ask()
        if answer.status != 401 or time.monotonic() > deadline:
            return answer
        seen = seen_path(answer)
        if seen is None or not seen.startswith(f"{line.signed}{BASE}/"):
            return answer
        time.sleep(0.1)


@dataclass
class _Steps:
    """The calls at ``line``; what is left of them is removed at ``near``. ``outside``: a proxy may be between."""

    line: Line
    near: Line
    deadline: float
    outside: bool
    settings: Settings
    times: list[tuple[str, float]] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Do all of them; raises _Stop at the first that is not answered as the contract says."""
        try:
            self._ours(_state(self.line.tenant))
        finally:
            if self.saved:
                with contextlib.suppress(*BROKEN):
                    self.near.delete(self.saved)

    def _ours(self, state: dict) -> None:
        self._learn_path()
        self._save("save", state)
        self._load(state)
        if self.outside:
            size = min(_LARGE, self.settings.max_body // 2, self.settings.max_inflated // 2)
            large = _state(self.line.tenant) | {"content": json.dumps(secrets.token_hex(size // 4))}
            self._save(f"save of {size >> 10} KiB", large, compressed=False)
        self._do("delete", lambda: self.line.delete(self.saved), 204)
        self._do("load again", lambda: self.line.load(state["id"]), 404)
        self.saved.clear()

    def _learn_path(self) -> None:
        """Sign what the receiver sees: where that is not what was sent, the proxy's check tells it."""
        if self.outside:
            answer = self._do(_UNSIGNED, self.line.ask_unsigned, 401, patient=False)
            self.line.signed = (seen_path(answer) or "").partition(BASE)[0]

    def _save(self, name: str, state: dict, **how: object) -> None:
        self.saved.append(state["id"])
        self._do(name, lambda: self.line.save(state, **how), 204)

    def _load(self, state: dict) -> None:
        answer = self._do("load", lambda: self.line.load(state["id"]), 200)
        try:
            same = self.line.open(state["id"], answer) == state["content"]
        except (ReplyRefused, JWException, ValueError, KeyError, TypeError) as cause:
            told = f"the answer to the load cannot be opened ({type(cause).__name__})"
            raise _Stop(told, "let the proxy pass the bodies of answers on unchanged") from None
        if not same:
            raise _Stop("another content came back than was saved", "look into its log")

    def _do(self, name: str, ask: Callable[[], Answer], expected: int, patient: bool = True) -> Answer:
        try:
            answer = _until_known(self.line, ask, self.deadline) if patient else ask()
        except BROKEN as cause:
            raise _Stop(f"{name}: {told_broken(cause)}", "see proxy" if self.outside else "see service") from None
        if answer.status != expected or (expected >= 400 and seen_path(answer) is None):
            raise _Stop(f"{name} is answered with {said(answer)}; {expected} was expected", self._mend(name, answer))
        if patient:
            self.times.append((name, 1000 * answer.seconds))
        return answer

    def _mend(self, name: str, answer: Answer) -> str:
        return "see proxy" if name == _UNSIGNED else _mend_of(name, answer, self.settings)


def _mend_of(name: str, answer: Answer, settings: Settings) -> str:
    """Return what mends that the call ``name`` got this ``answer``."""
    if seen_path(answer) is None:
        if answer.status == 413:
            return f"nginx: client_max_body_size {settings.max_body}; as large as STORAGE_MAX_BODY"
        return "see proxy" if answer.status in {502, 503, 504} else _PASSING
    message = said(answer)
    if answer.status == 400 and "body" in message:
        return f"let the proxy pass the body of {'DELETE' if name == 'delete' else 'POST'} on: some strip it"
    mends = {
        400: _HEADERS,
        401: f"{_HEADERS}; of several receivers behind it only the one that runs here knows the keys of the trial",
        403: "add this address, or the proxy's, to STORAGE_ALLOW_FROM and STORAGE_TRUSTED_PROXIES",
        413: "set STORAGE_MAX_BODY to what the platform may send: 32MiB",
        415: "let the proxy pass Content-Type and Content-Encoding on as they are",
        503: "see store",
        507: "see disk",
    }
    return mends.get(answer.status, "look into the receiver's log for the id in X-Request-ID")


def _state(tenant: str) -> dict:
    """Return a made-up state of ``tenant`` under an id of its own, which expires soon."""
    now = datetime.now(UTC)
    times = {"createdAt": ticks(now, 0), "updatedAt": ticks(now, 0), "expiresAt": ticks(now + _LIFE, 0)}
    return FlowRun(tenant, secrets.randbits(32)).state() | {"id": str(uuid.uuid4())} | times
