"""Stage 3: saving states: which version replaces which, and which claims a state needs. Protocol, section 5."""

import random
import uuid

from receiver.conformance.answers import described
from receiver.conformance.registry import check
from receiver.conformance.trial import FIRST, LATER, Trial, tomorrow, versioned
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.json_values import JSON, JSONObject

REQUIRED = ("id", "tenant", "flow", "flowVersion", "isDone", "createdAt", "updatedAt", "content")
NULLABLE = ("parent", "currentMapElement", "currentUser", "expiresAt")


def save(trial: Trial, state: JSONObject, what: str, **changes: JSON) -> None:
    """Save ``state`` with ``changes``; fail unless the answer is 204."""
    trial.expect(trial.client.save(state | changes), 204, what=what)


@check("save.new", "must", "A new state is answered 204 without a body, and a GET returns it.", "protocol, section 2.3")
def new(trial: Trial) -> None:
    state = trial.state()
    answer = trial.expect(trial.client.save(state), 204, what="a new state")
    if answer.body:
        trial.fail("204 without a body", f"a body of {len(answer.body)} bytes came")
    trial.expect_content(state["id"], state["content"])


@check(
    "save.flow",
    "must",
    "A flow's run is saved step by step, growing each time, and a GET returns the latest version.",
    "protocol, section 5.7",
)
def flow(trial: Trial) -> None:
    run = FlowRun(trial.tenant, uuid.uuid4().int)
    trial.made.add((trial.tenant, run.id))
    for step in range(6):
        save(trial, run.state(), f"step {step}", expiresAt=tomorrow())
        trial.expect_content(run.id, run.state()["content"])
        run.step()


@check("save.newer-wins", "must", "A later updatedAt replaces the stored state.", "protocol, section 5.7; C08")
def newer_wins(trial: Trial) -> None:
    state = trial.stored()
    trial.expect_content(state["id"], state["content"])
    save(trial, state, "a newer state", updatedAt=LATER, content=versioned("newer"))
    trial.expect_content(state["id"], versioned("newer"), "the newer content")


@check(
    "save.older-ignored",
    "must",
    "A save that arrives late is answered 204 and changes nothing.",
    "protocol, section 5.7; C08",
)
def older_ignored(trial: Trial) -> None:
    state = trial.stored(updatedAt=LATER)
    save(trial, state, "an older state", updatedAt=FIRST, content=versioned("older"))
    trial.expect_content(state["id"], state["content"], "the newer content, unchanged")


@check(
    "save.equal-replaces",
    "should",
    "An equal updatedAt replaces the stored state: of two saves at one instant, the last one stays.",
    "protocol, section 5.7; C08",
)
def equal_replaces(trial: Trial) -> None:
    state = trial.stored()
    save(trial, state, "the same updatedAt", content=versioned("equal"))
    trial.expect_content(state["id"], versioned("equal"), "the content that came last")


@check(
    "save.any-order",
    "must",
    "The newest version stays, in whatever order the versions arrive.",
    "C08; protocol, section 10.5",
)
def any_order(trial: Trial) -> None:
    base = trial.state()
    versions = [{"updatedAt": f"2026-01-01T00:00:{n:02d}.000Z", "content": versioned(str(n))} for n in range(12)]
    random.Random(8).shuffle(versions)  # noqa: S311 - an order of arrival
    for version in versions:
        save(trial, base, f"the version of {version['updatedAt']}", **version)
    trial.expect_content(base["id"], versioned("11"), "the newest version")


@check(
    "save.again-after-delete",
    "must",
    "A deleted state can be saved again, even in an older version.",
    "protocol, section 5.7",
)
def again_after_delete(trial: Trial) -> None:
    state = trial.stored(updatedAt=LATER)
    trial.expect(trial.client.delete([state["id"]]), 204, what="DELETE")
    save(trial, state, "an older version after the delete", updatedAt=FIRST, content=versioned("again"))
    trial.expect_content(state["id"], versioned("again"), "what was saved after the delete")


@check("save.nulls", "must", "parent, currentMapElement and currentUser may be null or have a value.", "C05")
def nulls(trial: Trial) -> None:
    full = {name: str(uuid.uuid4()) for name in NULLABLE[:3]} | {"expiresAt": "2099-01-01T00:00:00.0000000Z"}
    for what, values in (("with null", dict.fromkeys(NULLABLE[:3])), ("with values", full)):
        state = trial.state(**values)
        save(trial, state, what)
        trial.expect_content(state["id"], state["content"])


@check("save.never-expires", "should", "expiresAt may be null: such a state never expires.", "C05")
def never_expires(trial: Trial) -> None:
    state = trial.state(expiresAt=None)
    save(trial, state, "expiresAt null")
    trial.expect_content(state["id"], state["content"])


@check(
    "save.empties",
    "should",
    "The nullable claims may be empty strings.",
    "protocol, section 5.4",
)
def empties(trial: Trial) -> None:
    state = trial.state(**dict.fromkeys(NULLABLE, ""))
    save(trial, state, "with empty strings")
    trial.expect_content(state["id"], state["content"])


@check("save.is-done", "must", "isDone may be true or false.", "protocol, section 5.4")
def is_done(trial: Trial) -> None:
    for value in (True, False):
        state = trial.state(isDone=value)
        save(trial, state, f"isDone {value}")
        trial.expect_content(state["id"], state["content"])


@check("save.expired", "must", "A state whose expiresAt has passed is still returned until it is purged.", "C12")
def expired(trial: Trial) -> None:
    state = trial.stored(expiresAt="2026-01-01T10:00:01.0000000Z")
    trial.expect_content(state["id"], state["content"], "the expired state")


@check(
    "save.required",
    "must",
    "The receiver refuses a state without one of its required claims and stores nothing.",
    "C05",
)
def required(trial: Trial) -> None:
    _claims(trial, {f"no {name}": {name: ...} for name in REQUIRED})


@check(
    "save.required-named",
    "should",
    "A missing claim is answered 400, and the message names the item and the claim.",
    "C05; protocol, section 5.4",
)
def required_named(trial: Trial) -> None:
    for name in REQUIRED:
        missing: JSONObject = {name: ...}
        answer = trial.expect(trial.post(trial.token(trial.state(), **missing)), 400, what=f"no {name}")
        message = str(answer.json.get("message"))
        if "0" not in message or name not in message:
            trial.fail(f"a message that names item 0 and {name}", described(answer))


@check(
    "save.wrong-types", "should", "A claim of another type is answered 400, never 500, and nothing is stored.", "C05"
)
def wrong_types(trial: Trial) -> None:
    values: tuple[JSON, ...] = (None, 1, True, [], {}, "text")
    valid = {("isDone", "True"), ("content", "'text'")}
    changes = {
        f"{name}: {value!r}": {name: value} for name in REQUIRED for value in values if (name, repr(value)) not in valid
    }
    _claims(trial, changes, 400)


@check("save.nullable-wrong", "should", "A nullable claim must be a UUID, a time or nothing.", "C05")
def nullable_wrong(trial: Trial) -> None:
    values: tuple[JSON, ...] = (1, [], True, "x", " ")
    _claims(trial, {f"{name}: {value!r}": {name: value} for name in NULLABLE for value in values}, 400)


@check("save.almost-boolean", "should", 'isDone must be true or false, not "true" or 1.', "C05")
def almost_boolean(trial: Trial) -> None:
    _claims(trial, {repr(value): {"isDone": value} for value in ("true", 1, 0, "")}, 400)


def _claims(trial: Trial, variants: dict[str, JSONObject], *allowed: int) -> None:
    state = trial.state()
    for name, changes in variants.items():
        answer = trial.post(trial.token(state, **changes))
        trial.expect_refused(answer, name)
        if allowed:
            trial.expect(answer, *allowed, what=name)
    trial.expect_absent(state["id"], "each save of it was refused")


@check(
    "save.id-spelling",
    "should",
    "An id must be spelled 8-4-4-4-12; any other spelling is answered 400.",
    "protocol, section 5.4",
)
def id_spelling(trial: Trial) -> None:
    id = trial.state()["id"]
    spellings = ("{" + id + "}", "urn:uuid:" + id, id.replace("-", ""), id[:-1], id + "0", id + "\n", " " + id)
    for spelled in spellings:
        answer = trial.post(trial.token(trial.state(), id=spelled, sub=spelled))
        trial.expect(answer, 400, what=f"id {spelled!r}")
    trial.expect_absent(id, "each save of it was refused")


@check("save.id-case", "should", "An id in upper case is the same id.", "A20")
def id_case(trial: Trial) -> None:
    state = trial.stored()
    upper = state["id"].upper()
    save(trial, state, "the id in upper case", id=upper, updatedAt=LATER, content=versioned("newer"))
    trial.expect_content(state["id"], versioned("newer"), "the newer content, saved under the id in upper case")
    save(trial, state, "an older one in upper case", id=upper, content=versioned("older"))
    trial.expect_content(state["id"], versioned("newer"), "the newer content, unchanged")
