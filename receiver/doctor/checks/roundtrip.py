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

from receiver.doctor.client import BROKEN, ReceiverClient, failure_message, path_seen, reply_message
from receiver.doctor.direct import NoDirectPath, TLSOptions, direct
from receiver.doctor.findings import Finding, cause_text, fail, ok
from receiver.doctor.subject import Subject
from receiver.doctor.trial import trial
from receiver.mock_platform.client import BASE, Answer
from receiver.mock_platform.flow_states import FlowRun, ticks
from receiver.mock_platform.keys import StoreKeys, new_store
from receiver.mock_platform.tokens import ReplyRefused
from receiver.process.running import Service
from receiver.settings import Settings

TOPIC = "roundtrip"
_PATIENCE = 15.0  # seconds in which a worker accepts the keys
_LITTLE = 5.0  # seconds once one has, so that the others soon will; or if it is known that none can
_LIFE = timedelta(minutes=10)  # of the state, if it is left behind
_LARGE = 3 << 20  # bytes of a body that common proxies refuse by default
_UNSIGNED = "an unsigned load"
_PASSING = "let the proxy pass GET, POST and DELETE on, with everything under /api/storage/1"
_HEADERS = "let the proxy pass the headers X-ManyWho-... on"


@dataclass(frozen=True)
class _TrialState:
    """A made-up state: its ``claims`` (protocol, section 5.4), and two of them at hand."""

    id: str
    content: str
    claims: dict[str, object]


def _trial_state(tenant: str, content: str | None = None) -> _TrialState:
    """Return a made-up state of ``tenant`` with a new id, which expires soon; with ``content`` if that is given."""
    now, state_id = datetime.now(UTC), str(uuid.uuid4())
    times = {"createdAt": ticks(now, 0), "updatedAt": ticks(now, 0), "expiresAt": ticks(now + _LIFE, 0)}
    claims = FlowRun(tenant, secrets.randbits(32)).state() | {"id": state_id} | times
    content = str(claims["content"]) if content is None else content
    return _TrialState(state_id, content, claims | {"content": content})


class _Stop(Exception):
    """Ends the trial with the ``finding`` of why."""

    def __init__(self, message: str, fix: str) -> None:
        self.finding = fail(TOPIC, message, fix)
        super().__init__(message)


def play(subject: Subject, tls: TLSOptions, url: str | None, tenant: str | None) -> Iterator[Finding]:
    """Play the platform against the running receiver, at ``url`` if given; yields one finding."""
    service = subject.service
    if service is None:
        yield fail(TOPIC, "it is not known which receiver runs here, so there is nothing to call", "see service")
        return
    keys = new_store()
    tenant = tenant or next(iter(sorted(subject.settings.tenants)), None) or str(uuid.uuid4())
    try:
        with trial(service, tenant, keys):
            found = _played(subject, service, tls, url, tenant, keys)
    except OSError as cause:
        message = f"no keys can be put into {service.trial}: {cause_text(cause)}"
        found = fail(TOPIC, message, "run doctor as the receiver's user, or as root")
    yield found


def _played(
    subject: Subject, service: Service, tls: TLSOptions, url: str | None, tenant: str, keys: StoreKeys
) -> Finding:
    began = time.monotonic()
    deadline = began + (_LITTLE if subject.mistakes or subject.key_mistakes else _PATIENCE)
    with contextlib.ExitStack() as closing:
        try:
            near, far = _clients(subject.settings, service, tls, url, tenant, keys)
            closing.callback(far.close)
            if near:
                closing.callback(near.close)
                _await_keys(near, deadline, subject)
                deadline = time.monotonic() + _LITTLE
            taken = time.monotonic() - began
            steps = _Steps(far, near or far, deadline, url is not None, subject.settings)
            steps.run()
        except _Stop as stop:
            return stop.finding
    where = f"through {url}" if url else "at the receiver itself"
    times = [f"keys accepted in {taken:.1f} s", *(f"{name} {ms:.0f} ms" for name, ms in steps.times)]
    message = f"a state was saved, loaded, compared and deleted {where}"
    return ok(TOPIC, message, ", ".join(times), f"tenant {tenant}")


def _clients(
    settings: Settings, service: Service, tls: TLSOptions, url: str | None, tenant: str, keys: StoreKeys
) -> tuple[ReceiverClient | None, ReceiverClient]:
    """Return a client of the receiver itself, None if only ``url`` leads there, and the client that makes the calls.

    Raises _Stop if neither leads there.
    """
    try:
        near = direct(settings, service, tls, tenant, keys)
    except NoDirectPath as cause:
        if url is None:
            raise _Stop(str(cause), cause.fix) from None
        return None, ReceiverClient(url, tenant, keys, tls.context)
    return near, ReceiverClient(url, tenant, keys, tls.context) if url else near


def _await_keys(client: ReceiverClient, deadline: float, subject: Subject) -> None:
    """Return when the receiver behind ``client`` accepts its keys, and sign for the path that the receiver sees."""
    try:
        client.signed = (path_seen(client.ask_unsigned()) or "").partition(BASE)[0]
        answer = _until_known(client, lambda: client.load(str(uuid.uuid4())), deadline)
    except BROKEN as cause:
        message = f"the receiver itself cannot be called: {failure_message(cause)}"
        raise _Stop(message, "if it has not read a new certificate yet: kill -HUP its process; see service") from None
    if answer.status == 401:
        wrong = [*subject.mistakes, *subject.key_mistakes]
        message = "the receiver has not accepted the keys of the trial"
        message += f", since a mistake keeps the old ones: {wrong[0]}" if wrong else f" within {_PATIENCE:g} s"
        raise _Stop(message, "see settings and keys" if wrong else "look into its log for why it kept the old ones")
    if answer.status != 404 or path_seen(answer) is None:
        message = f"a load of a state that does not exist is answered with {reply_message(answer)}"
        raise _Stop(message, _fix_for("load", answer, subject.settings))


def _until_known(client: ReceiverClient, ask: Callable[[], Answer], deadline: float) -> Answer:
    """Return the first answer to ``ask`` that does not come from a worker, or another receiver, without the keys."""
    while True:
        answer = ask()
        if answer.status != 401 or time.monotonic() > deadline:
            return answer
        seen = path_seen(answer)
        if seen is None or not seen.startswith(f"{client.signed}{BASE}/"):
            return answer
        time.sleep(0.1)


@dataclass
class _Steps:
    """The calls of ``client``; ``near`` removes what they leave. ``outside``: a proxy may be between."""

    client: ReceiverClient
    near: ReceiverClient
    deadline: float
    outside: bool
    settings: Settings
    times: list[tuple[str, float]] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Do all of them; raises _Stop at the first answer that breaks the contract."""
        try:
            self._all()
        finally:
            if self.saved:
                with contextlib.suppress(*BROKEN):
                    self.near.delete(self.saved)

    def _all(self) -> None:
        self._learn_path()
        state = _trial_state(self.client.tenant)
        self._save("save", state)
        self._load(state)
        if self.outside:
            size = min(_LARGE, self.settings.max_body // 2, self.settings.max_inflated // 2)
            large = _trial_state(self.client.tenant, json.dumps(secrets.token_hex(size // 4)))
            self._save(f"save of {size >> 10} KiB", large, compressed=False)
        self._do("delete", lambda: self.client.delete(self.saved), 204)
        self._do("load again", lambda: self.client.load(state.id), 404)
        self.saved.clear()

    def _learn_path(self) -> None:
        """Sign for the path that the receiver sees: if it is not the one that was sent, the proxy check reports it."""
        if self.outside:
            answer = self._do(_UNSIGNED, self.client.ask_unsigned, 401, patient=False)
            self.client.signed = (path_seen(answer) or "").partition(BASE)[0]

    def _save(self, name: str, state: _TrialState, compressed: bool = True) -> None:
        self.saved.append(state.id)
        self._do(name, lambda: self.client.save(state.claims, compressed=compressed), 204)

    def _load(self, state: _TrialState) -> None:
        answer = self._do("load", lambda: self.client.load(state.id), 200)
        try:
            same = self.client.open(state.id, answer) == state.content
        except (ReplyRefused, JWException, ValueError, KeyError, TypeError) as cause:
            message = f"the answer to the load cannot be opened ({type(cause).__name__})"
            raise _Stop(message, "let the proxy pass the bodies of answers on unchanged") from None
        if not same:
            raise _Stop("the content that came back is not the one that was saved", "look into its log")

    def _do(self, name: str, ask: Callable[[], Answer], expected: int, patient: bool = True) -> Answer:
        try:
            answer = _until_known(self.client, ask, self.deadline) if patient else ask()
        except BROKEN as cause:
            see = "see proxy" if self.outside else "see service"
            raise _Stop(f"{name}: {failure_message(cause)}", see) from None
        if answer.status != expected or (expected >= 400 and path_seen(answer) is None):
            message = f"{name} is answered with {reply_message(answer)}; {expected} was expected"
            raise _Stop(message, "see proxy" if name == _UNSIGNED else _fix_for(name, answer, self.settings))
        if patient:
            self.times.append((name, 1000 * answer.seconds))
        return answer


def _fix_for(name: str, answer: Answer, settings: Settings) -> str:
    """Return the fix for this ``answer`` to the call ``name``."""
    if path_seen(answer) is None:
        if answer.status == 413:
            return f"nginx: client_max_body_size {settings.max_body}; as large as STORAGE_MAX_BODY"
        return "see proxy" if answer.status in {502, 503, 504} else _PASSING
    if answer.status == 400 and "body" in reply_message(answer):
        return f"let the proxy pass the body of {'DELETE' if name == 'delete' else 'POST'} on: some remove it"
    fixes = {
        400: _HEADERS,
        401: f"{_HEADERS}; of several receivers behind it only the one that runs here knows the keys of the trial",
        403: "add this address, or the proxy's, to STORAGE_ALLOW_FROM and STORAGE_TRUSTED_PROXIES",
        413: "set STORAGE_MAX_BODY to what the platform may send: 32MiB",
        415: "let the proxy pass Content-Type and Content-Encoding on unchanged",
        503: "see store",
        507: "see disk",
    }
    return fixes.get(answer.status, "look into the receiver's log for the id in X-Request-ID")
