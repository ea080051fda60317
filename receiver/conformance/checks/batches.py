"""Several states in one request: all are stored, or none. Case C06; protocol, section 10.2."""

import uuid

from receiver.conformance.answers import described
from receiver.conformance.registry import check
from receiver.conformance.trial import FIRST, LATER, Trial, versioned
from receiver.mock_platform.json_values import JSONObject


def _all_absent(trial: Trial, states: list[JSONObject]) -> None:
    for state in states:
        trial.expect_absent(state["id"], "another item of its request was refused")


@check(
    "batch.all",
    "must",
    "Every state of a request is stored, including the first and the last.",
    "protocol, section 2.3",
)
def all_stored(trial: Trial) -> None:
    states = [trial.state() for _ in range(20)]
    trial.expect(trial.client.save(*states), 204, what="20 states")
    for state in states:
        trial.expect_content(state["id"], state["content"], "the content of one of 20")


@check("batch.two", "must", "Two states in one request are stored as two states.", "protocol, section 2.3")
def two(trial: Trial) -> None:
    states = [trial.state(), trial.state()]
    trial.expect(trial.client.save(*states), 204, what="2 states")
    for state in states:
        trial.expect_content(state["id"], state["content"], "the content of one of 2")


@check("batch.hundred", "must", "A request with 100 states is stored.", "protocol, section 2.3")
def hundred(trial: Trial) -> None:
    states = [trial.state() for _ in range(100)]
    trial.expect(trial.client.save(*states), 204, what="100 states")
    for state in (states[0], states[50], states[98], states[99]):
        trial.expect_content(state["id"], state["content"], "the content of one of 100")


@check("batch.empty", "should", "An empty array is accepted.", "C06")
def empty(trial: Trial) -> None:
    state = trial.stored()
    trial.expect(trial.client.post([]), 204, what="POST of []")
    trial.expect_content(state["id"], state["content"])


@check(
    "batch.same-id",
    "must",
    "If a request contains two versions of one state, the newer one stays, in either order.",
    "C08",
)
def same_id(trial: Trial) -> None:
    for order in (1, -1):
        state = trial.state()
        versions = [state, state | {"updatedAt": LATER, "content": versioned("newer")}][::order]
        trial.expect(trial.client.save(*versions), 204, what="two versions in one request")
        trial.expect_content(state["id"], versioned("newer"), "the newer of the two")


@check("batch.partly-older", "must", "An older state in a request is ignored, and the other states are stored.", "C08")
def partly_older(trial: Trial) -> None:
    stored, fresh = trial.stored(updatedAt=LATER), trial.state()
    answer = trial.client.save(stored | {"updatedAt": FIRST, "content": versioned("older")}, fresh)
    trial.expect(answer, 204, what="an older and a new state")
    trial.expect_content(stored["id"], stored["content"], "the newer content, unchanged")
    trial.expect_content(fresh["id"], fresh["content"], "the new state")


@check(
    "batch.invalid-last",
    "should",
    "If the last state is invalid, the answer is 400 and no state of the request is stored.",
    "C06; protocol, section 10.2",
)
def invalid_last(trial: Trial) -> None:
    states = [trial.state() for _ in range(10)]
    tokens = [trial.token(state) for state in states]
    trial.expect(trial.post(*tokens, trial.token(trial.state(), flow="x")), 400, what="the 11th has an invalid flow")
    _all_absent(trial, states)


@check(
    "batch.invalid-first",
    "should",
    "If the first state is invalid, the answer is 400 and no state of the request is stored.",
    "C06; protocol, section 10.2",
)
def invalid_first(trial: Trial) -> None:
    states = [trial.state() for _ in range(3)]
    tokens = [trial.token(state) for state in states]
    trial.expect(
        trial.post(trial.token(trial.state(), updatedAt="x"), *tokens), 400, what="the first has an invalid time"
    )
    _all_absent(trial, states)


@check(
    "batch.unreadable",
    "should",
    "If one token cannot be opened, the answer is 400 and no state of the request is stored.",
    "C06; protocol, section 10.2",
)
def unreadable(trial: Trial) -> None:
    states = [trial.state() for _ in range(3)]
    tokens = [trial.token(state) for state in states]
    trial.expect(trial.post(*tokens, trial.token(trial.state())[:-6]), 400, what="the 4th is truncated")
    _all_absent(trial, states)


@check(
    "batch.keeps-old",
    "should",
    "A refused request leaves the previously stored states unchanged.",
    "protocol, section 10.2",
)
def keeps_old(trial: Trial) -> None:
    stored = trial.stored()
    newer = trial.token(stored | {"updatedAt": LATER, "content": versioned("newer")})
    trial.expect(trial.post(newer, trial.token(trial.state(), isDone="x")), 400, what="the 2nd is invalid")
    trial.expect_content(stored["id"], stored["content"], "the content from before the refused request")


@check("batch.index", "should", "The message names the index of the first invalid item.", "protocol, section 7.2")
def index(trial: Trial) -> None:
    good = [trial.token(trial.state()) for _ in range(4)]
    answer = trial.post(*good, trial.token(trial.state(), currentUser="x"), trial.token(trial.state(), flow="x"))
    trial.expect(answer, 400, what="items 4 and 5 are invalid")
    message = str(answer.json.get("message"))
    if "4" not in message:
        trial.fail("a message that names item 4", described(answer))


@check(
    "batch.unknown-parent",
    "must",
    "A state may name a parent that the store does not have yet.",
    "protocol, section 5.4",
)
def unknown_parent(trial: Trial) -> None:
    parent = trial.state()
    child = trial.state(parent=parent["id"])
    orphan = trial.state(parent=str(uuid.uuid4()))
    trial.expect(trial.client.save(child, parent, orphan), 204, what="a child before its parent")
    for state in (parent, child, orphan):
        trial.expect_content(state["id"], state["content"])
