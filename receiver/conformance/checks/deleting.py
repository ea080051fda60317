"""Stage 3: deleting states. Protocol, section 2.4; case C13."""

import json
import uuid

from receiver.conformance.registry import check
from receiver.conformance.trial import Trial


def _delete(trial: Trial, *ids: str, what: str = "DELETE") -> None:
    trial.expect(trial.client.delete(ids), 204, what=what)


@check("delete.removes", "must", "A deleted state is gone, and the 204 has no body.", "protocol, section 2.4")
def removes(trial: Trial) -> None:
    state = trial.stored()
    answer = trial.expect(trial.client.delete([state["id"]]), 204, what="DELETE")
    if answer.body:
        trial.fail("204 without a body", f"a body of {len(answer.body)} bytes came")
    trial.expect_absent(state["id"], "it was deleted")


@check("delete.unknown", "must", "Deleting unknown ids is not an error.", "protocol, section 2.4")
def unknown(trial: Trial) -> None:
    _delete(trial, str(uuid.uuid4()), str(uuid.uuid4()), what="DELETE of unknown ids")


@check("delete.again", "must", "Deleting a state twice is not an error.", "protocol, section 2.4")
def again(trial: Trial) -> None:
    state = trial.stored()
    for time in ("first", "second"):
        _delete(trial, state["id"], what=f"the {time} time")
    trial.expect_absent(state["id"], "it was deleted")


@check("delete.only-named", "must", "Only the named states are deleted.", "protocol, section 2.4")
def only_named(trial: Trial) -> None:
    states = [trial.stored() for _ in range(3)]
    _delete(trial, states[1]["id"])
    trial.expect_absent(states[1]["id"], "it was deleted")
    for state in (states[0], states[2]):
        trial.expect_content(state["id"], state["content"], "a state that was not named")


@check(
    "delete.many",
    "must",
    "All named states are deleted, even if unknown ids are among them.",
    "protocol, section 2.4",
)
def many(trial: Trial) -> None:
    states = [trial.state() for _ in range(20)]
    trial.expect(trial.client.save(*states), 204, what="POST of 20 states")
    ids = [state["id"] for state in states] + [str(uuid.uuid4()) for _ in range(480)]
    _delete(trial, *sorted(ids), what="DELETE of 500 ids")
    for state in states:
        trial.expect_absent(state["id"], "it was deleted")


@check("delete.empty", "should", "An empty array is accepted and deletes nothing.", "C13")
def empty(trial: Trial) -> None:
    state = trial.stored()
    _delete(trial, what="DELETE of []")
    trial.expect_content(state["id"], state["content"])


@check("delete.twice-in-one", "must", "Naming an id twice in one request is not an error.", "protocol, section 2.4")
def twice_in_one(trial: Trial) -> None:
    state = trial.stored()
    _delete(trial, state["id"], state["id"], what="the same id twice")
    trial.expect_absent(state["id"], "it was deleted")


@check("delete.id-case", "should", "An id in upper case is the same id.", "A20")
def id_case(trial: Trial) -> None:
    state = trial.stored()
    _delete(trial, state["id"].upper(), what="the id in upper case")
    trial.expect_absent(state["id"], "it was deleted, by its id in upper case")


@check("delete.odd-bodies", "should", "A body that is not an array of ids is answered 400 and deletes nothing.", "C13")
def odd_bodies(trial: Trial) -> None:
    state = trial.stored()
    for body in (b"null", b"{}", b'""', b'"id"', b"[1]", b"[null]", b"[[]]", b"[true]", b"1", b"[{}]", b'[""]', b" "):
        trial.expect(trial.send("DELETE", trial.path(), body), 400, what=f"DELETE of {body.decode()!r}")
    trial.expect_content(state["id"], state["content"], "the state that no request named")


@check(
    "delete.no-body",
    "should",
    "A DELETE without a body, as after a proxy dropped it, is answered 400, because it names nothing.",
    "C13",
)
def no_body(trial: Trial) -> None:
    state = trial.stored()
    trial.expect(trial.send("DELETE", trial.path()), 400, what="DELETE without a body")
    trial.expect_content(state["id"], state["content"])


@check(
    "delete.all-or-nothing",
    "should",
    "One invalid id is answered 400, and the other states are not deleted.",
    "protocol, section 10.2; C13",
)
def all_or_nothing(trial: Trial) -> None:
    state = trial.stored()
    for bad in ("x", 1, None, "{" + state["id"] + "}", state["id"].replace("-", "")):
        for ids in ([state["id"], bad], [bad, state["id"]]):
            trial.expect(trial.send("DELETE", trial.path(), json.dumps(ids).encode()), 400, what=f"with {bad!r}")
    trial.expect_content(state["id"], state["content"], "a state that was named together with an invalid id")
