"""One signature is good for one change; the identical request again is a retry. Protocol, section 3.4; case A21."""

import json

from receiver.conformance.registry import check
from receiver.conformance.trial import FIRST, LATER, Trial, versioned


@check(
    "replay.retry",
    "must",
    "The identical request, sent again as after a lost reply, is answered 204 again.",
    "protocol, section 10.3; A21",
)
def retry(trial: Trial) -> None:
    state = trial.state()
    path, body = trial.path(), trial.body(state)
    headers = trial.headers(path)
    for time in ("first", "second", "third"):
        trial.expect(trial.client.call("POST", path, body, headers), 204, what=f"the {time} time")
    trial.expect_content(state["id"], state["content"])


@check(
    "replay.retry-delete",
    "must",
    "The identical DELETE, sent again, is answered 204 again.",
    "protocol, section 10.3; A21",
)
def retry_delete(trial: Trial) -> None:
    state = trial.stored()
    path, body = trial.path(), json.dumps([state["id"]]).encode()
    headers = trial.headers(path)
    for time in ("first", "second"):
        trial.expect(trial.client.call("DELETE", path, body, headers), 204, what=f"the {time} time")
    trial.expect_absent(state["id"], "it was deleted")


@check(
    "replay.load",
    "must",
    "A GET may be repeated with the same signature, because it changes nothing.",
    "protocol, section 10.3",
)
def load(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"])
    headers = trial.headers(path)
    for time in ("first", "second"):
        trial.expect(trial.client.call("GET", path, headers=headers), 200, what=f"the {time} time")


@check(
    "replay.no-second-effect",
    "should",
    "A late copy of a save does not bring back a deleted state.",
    "A21; protocol, section 3.4",
)
def no_second_effect(trial: Trial) -> None:
    state = trial.state()
    path, body = trial.path(), trial.body(state)
    headers = trial.headers(path)
    trial.expect(trial.client.call("POST", path, body, headers), 204, what="the save")
    trial.expect(trial.client.delete([state["id"]]), 204, what="the delete")
    trial.expect(trial.client.call("POST", path, body, headers), 204, what="the copy of the save")
    trial.expect_absent(state["id"], "it was deleted after its save")


@check(
    "replay.no-second-delete",
    "should",
    "A late copy of a delete does not delete what was saved after it.",
    "A21; protocol, section 3.4",
)
def no_second_delete(trial: Trial) -> None:
    state = trial.stored()
    path, body = trial.path(), json.dumps([state["id"]]).encode()
    headers = trial.headers(path)
    trial.expect(trial.client.call("DELETE", path, body, headers), 204, what="the delete")
    trial.stored(state)
    trial.expect(trial.client.call("DELETE", path, body, headers), 204, what="the copy of the delete")
    trial.expect_content(state["id"], state["content"], "the state that was saved after the delete")


@check(
    "replay.other-body",
    "should",
    "An intercepted signature does not authorise another body: the answer is 401, and nothing changes.",
    "protocol, section 3.4",
)
def other_body(trial: Trial) -> None:
    one, other = trial.state(), trial.state()
    path, body = trial.path(), trial.body(one)
    headers = trial.headers(path)
    trial.expect(trial.client.call("POST", path, body, headers), 204, what="the save")
    trial.expect(trial.client.call("POST", path, trial.body(other), headers), 401, what="another state")
    trial.expect(trial.client.call("POST", path, body + b" ", headers), 401, what="the same JSON with different bytes")
    trial.expect_absent(other["id"], "its signature was used before")
    trial.expect_content(one["id"], one["content"])


@check(
    "replay.other-method",
    "should",
    "A signature intercepted from a save does not authorise a DELETE, although both share a path.",
    "protocol, section 3.4",
)
def other_method(trial: Trial) -> None:
    state = trial.state()
    path = trial.path()
    headers = trial.headers(path)
    trial.expect(trial.client.call("POST", path, trial.body(state), headers), 204, what="the save")
    body = json.dumps([state["id"]]).encode()
    trial.expect(trial.client.call("DELETE", path, body, headers), 401, what="a DELETE under the same signature")
    trial.expect_content(state["id"], state["content"])


@check(
    "replay.new-signature",
    "should",
    "A used jti stays used under a new signature: the jti counts, not the bytes of the signature.",
    "protocol, section 3.4",
)
def new_signature(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path()
    jti = f"jti-{state['id']}"
    first = trial.send("POST", path, trial.body(state | {"updatedAt": LATER, "content": versioned("newer")}), jti=jti)
    trial.expect(first, 204, what="the save")
    body = json.dumps([state["id"]]).encode()
    trial.expect(trial.send("DELETE", path, body, jti=jti), 401, what="a DELETE with the same jti and a new signature")
    trial.expect_content(state["id"], versioned("newer"))


@check(
    "replay.free-after-refusal",
    "should",
    "A refused request does not use up its jti.",
    "protocol, section 10.2; protocol, section 3.4",
)
def free_after_refusal(trial: Trial) -> None:
    state = trial.state()
    path = trial.path()
    headers = trial.headers(path)
    trial.expect(trial.client.call("POST", path, b"[{}]", headers), 400, what="an invalid body")
    trial.expect(trial.client.call("POST", path, trial.body(state), headers), 204, what="a valid request with its jti")
    trial.expect_content(state["id"], state["content"])


@check(
    "replay.old-copy", "must", "A late copy of an older save does not undo a newer one.", "protocol, section 10.5; C08"
)
def old_copy(trial: Trial) -> None:
    state = trial.state(updatedAt=FIRST)
    path, body = trial.path(), trial.body(state)
    headers = trial.headers(path)
    trial.expect(trial.client.call("POST", path, body, headers), 204, what="the save")
    trial.stored(state | {"updatedAt": LATER, "content": versioned("newer")})
    trial.expect(trial.client.call("POST", path, body, headers), 204, what="the copy of the first save")
    trial.expect_content(state["id"], versioned("newer"), "the newer content, unchanged")
