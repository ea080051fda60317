"""Many callers at once, each with its own connection. Protocol, sections 10.1, 10.3 and 10.5; case F02, smaller.

A 503 means "unknown, send the request again" (protocol, section 10.3), so the checks repeat it a few times.
"""

import contextlib
import json
import threading
import time
from functools import partial

from receiver.conformance.answers import Observation, same_meaning, shown
from receiver.conformance.registry import check
from receiver.conformance.target import RecordingClient
from receiver.conformance.trial import Trial
from receiver.mock_platform.json_values import JSONObject

_ATTEMPTS = 5


def _content(number: int) -> str:
    return json.dumps({"version": number})


def _version(state: JSONObject, number: int) -> JSONObject:
    return state | {"updatedAt": f"2026-05-01T00:00:{number:02d}.0000000Z", "content": _content(number)}


def _until_done(
    client: RecordingClient, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
) -> int:
    """Repeat one request while the answer is 503; return the last status."""
    headers = headers or client.headers(path)
    for attempt in range(_ATTEMPTS):
        status = client.call(method, path, body, headers).status
        if status != 503:
            break
        time.sleep(0.1 * attempt)
    return status


def _saves(trial: Trial, *batches: list[JSONObject]) -> list[int]:
    """Save all ``batches`` at the same time; return the statuses."""
    path = trial.path()
    bodies = [trial.body(*batch) for batch in batches]
    return trial.concurrently(*(partial(_until_done, method="POST", path=path, body=body) for body in bodies))


def _all(trial: Trial, statuses: list[int], expected: int, what: str) -> None:
    if set(statuses) != {expected}:
        trial.fail(f"{expected} to each ({what})", f"{sorted(statuses)} came")


@check(
    "concurrency.newest-wins",
    "must",
    "If versions of one state arrive together, the newest one stays.",
    "F02; protocol, section 10.5",
)
def newest_wins(trial: Trial) -> None:
    for _ in range(3):
        state = trial.state()
        _all(trial, _saves(trial, *([_version(state, n)] for n in (3, 7, 1, 5, 0, 6, 2, 4))), 204, "8 versions at once")
        trial.expect_content(state["id"], _content(7), "the newest version")


@check(
    "concurrency.first-save",
    "must",
    "Several callers may make the first save of one id at the same time.",
    "F02; protocol, section 10.4",
)
def first_save(trial: Trial) -> None:
    for _ in range(5):
        state = trial.state()
        _all(trial, _saves(trial, *[[state]] * 6), 204, "the same new state 6 times at once")
        trial.expect_content(state["id"], state["content"])


@check(
    "concurrency.distinct",
    "must",
    "Saves of different states do not affect each other, and none is lost.",
    "F01; protocol, section 10.1",
)
def distinct(trial: Trial) -> None:
    groups = [[trial.state() for _ in range(5)] for _ in range(8)]
    path = trial.path()

    def save_all(bodies: list[bytes], client: RecordingClient) -> list[int]:
        return [_until_done(client, "POST", path, body) for body in bodies]

    sealed = [[trial.body(state) for state in states] for states in groups]
    answered = trial.concurrently(*(partial(save_all, bodies) for bodies in sealed))
    statuses = [status for some in answered for status in some]
    _all(trial, statuses, 204, "40 states by 8 callers")
    for state in (state for states in groups for state in states):
        trial.expect_content(state["id"], state["content"], "the content of one of 40")


@check(
    "concurrency.read-your-write",
    "must",
    "After a 204, every other connection reads the saved state immediately.",
    "protocol, section 10.1",
)
def read_your_write(trial: Trial) -> None:
    state = trial.state()
    readers = [trial.connect() for _ in range(4)]
    try:
        for number in range(15):
            trial.stored(_version(state, number))
            for reader in (readers[number % 4], readers[(number + 1) % 4]):
                found = trial.content_of(state["id"], reader)
                if found is None or not same_meaning(found, _content(number)):
                    came = f"{shown(found)} came over another connection"
                    trial.fail(f"version {number}, which was acknowledged", came)
    finally:
        for reader in readers:
            reader.close()


@check(
    "concurrency.delete-is-seen",
    "must",
    "After a DELETE is answered 204, no other connection reads the state.",
    "protocol, section 10.1",
)
def delete_is_seen(trial: Trial) -> None:
    reader = trial.connect()
    try:
        for _ in range(6):
            state = trial.stored()
            trial.expect(trial.client.delete([state["id"]]), 204, what="DELETE")
            if (status := reader.load(state["id"]).status) != 404:
                trial.fail("404 over another connection after the DELETE", f"{status} came")
    finally:
        reader.close()


@check(
    "concurrency.monotonic",
    "must",
    "While a state is being written, no reader gets an older version than the acknowledged one.",
    "F02; protocol, section 10.5",
)
def monotonic(trial: Trial) -> None:
    state = trial.stored(_version(trial.state(), 0))
    acknowledged, done = [0], threading.Event()

    def write(client: RecordingClient) -> None:
        with contextlib.ExitStack() as at_the_end:
            at_the_end.callback(done.set)
            for number in range(1, 20):
                body = trial.body(_version(state, number))
                if _until_done(client, "POST", trial.path(), body) == 204:
                    acknowledged[0] = number

    def read(client: RecordingClient) -> tuple[str, str] | None:
        while not done.is_set():
            at_least = acknowledged[0]
            found = trial.content_of(state["id"], client)
            if found is None or json.loads(found)["version"] < at_least:
                return f"version {at_least} or newer", f"{shown(found)} came"
        return None

    wrong = next(filter(None, trial.concurrently(write, read, read)), None)
    if wrong:
        trial.fail(*wrong)
    trial.expect_content(state["id"], _content(19), "the last version")


@check(
    "concurrency.batches",
    "must",
    "Two requests with the same states in opposite order do not block each other.",
    "protocol, sections 10.3 and 10.4",
)
def batches(trial: Trial) -> None:
    for _ in range(3):
        states = [trial.state() for _ in range(8)]
        orders = [[_version(state, number) for state in states[:: 1 - 2 * (number % 2)]] for number in range(4)]
        _all(trial, _saves(trial, *orders), 204, "8 states in 4 requests at once")
        for state in states:
            trial.expect_content(state["id"], _content(3), "the newest version of each")


@check(
    "concurrency.save-and-delete",
    "must",
    "A save and a delete of one state at the same time both succeed, in either order.",
    "protocol, section 10.4",
)
def save_and_delete(trial: Trial) -> None:
    for _ in range(5):
        state = trial.stored(_version(trial.state(), 1))
        body = trial.body(_version(state, 2))
        gone = json.dumps([state["id"]]).encode()
        statuses = trial.concurrently(
            partial(_until_done, method="POST", path=trial.path(), body=body),
            partial(_until_done, method="DELETE", path=trial.path(), body=gone),
        )
        _all(trial, statuses, 204, "POST and DELETE at once")
        found = trial.content_of(state["id"])
        if found is not None and not same_meaning(found, _content(2)):
            trial.fail("the saved version, or nothing", f"{shown(found)} came")


@check(
    "concurrency.retries",
    "should",
    "A request that arrives several times at once takes effect once and is answered 204 each time.",
    "A21; protocol, section 10.3",
)
def retries(trial: Trial) -> None:
    for _ in range(3):
        state = trial.state()
        path, body = trial.path(), trial.body(state)
        headers = trial.headers(path)
        copies = [partial(_until_done, method="POST", path=path, body=body, headers=headers)] * 6
        _all(trial, trial.concurrently(*copies), 204, "6 copies of one request at once")
        trial.expect(trial.client.delete([state["id"]]), 204, what="DELETE")
        trial.expect(trial.client.call("POST", path, body, headers), 204, what="a late copy")
        trial.expect_absent(state["id"], "it was deleted after its only save")


@check(
    "concurrency.one-jti",
    "should",
    "Of several different changes with one jti at the same time, exactly one takes effect.",
    "protocol, section 3.4",
)
def one_jti(trial: Trial) -> None:
    for _ in range(3):
        states = [trial.state() for _ in range(5)]
        headers = trial.headers(trial.path())
        bodies = [trial.body(state) for state in states]
        same = partial(_until_done, method="POST", path=trial.path(), headers=headers)
        statuses = trial.concurrently(*(partial(same, body=body) for body in bodies))
        if sorted(statuses) != [204, 401, 401, 401, 401]:
            all_done = Observation(204 if set(statuses) == {204} else 0)
            trial.fail("one 204 and four 401", f"{sorted(statuses)} came", all_done)
        for state, status in zip(states, statuses, strict=True):
            found = trial.content_of(state["id"])
            if (found is not None) != (status == 204):
                trial.fail("only the acknowledged state to be stored", "another one is stored, or that one is not")
