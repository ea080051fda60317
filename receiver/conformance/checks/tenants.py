"""Tenants are isolated. A receiver that serves one tenant only may refuse the other. Cases C01 and C03."""

import json

from receiver.conformance.registry import check
from receiver.conformance.trial import LATER, Trial, versioned
from receiver.mock_platform.json_values import JSONObject

_REFUSED = (400, 401, 403, 404)


def _still_there(trial: Trial, state: JSONObject) -> None:
    trial.expect_content(state["id"], state["content"], "the tenant's own state, unchanged")


@check("tenants.load", "must", "A tenant cannot load another tenant's state.", "C03")
def load(trial: Trial) -> None:
    state = trial.stored()
    answer = trial.client_of(trial.other).load(state["id"])
    trial.expect(answer, *_REFUSED, what="GET of another tenant's id")


@check("tenants.delete", "must", "A tenant cannot delete another tenant's state.", "C03")
def delete(trial: Trial) -> None:
    state = trial.stored()
    answer = trial.client_of(trial.other).delete([state["id"]])
    trial.expect(answer, 204, *_REFUSED, what="DELETE of another tenant's id")
    _still_there(trial, state)


@check(
    "tenants.save",
    "should",
    "Saving an id that another tenant uses does not touch that tenant's state.",
    "protocol, section 5.4; C03",
)
def save(trial: Trial) -> None:
    state = trial.stored()
    theirs = trial.state(id=state["id"], tenant=trial.other, updatedAt=LATER, content=versioned("theirs"))
    answer = trial.client_of(trial.other).save(theirs)
    trial.expect(answer, 204, *_REFUSED, what="POST of an id that another tenant holds")
    _still_there(trial, state)
    if answer.status == 204:
        trial.expect_content(state["id"], versioned("theirs"), "the other tenant's own content", tenant=trial.other)
        trial.expect(trial.client.delete([state["id"]]), 204, what="DELETE of the first tenant's")
        trial.expect_content(
            state["id"], versioned("theirs"), "the other tenant's state, unchanged", tenant=trial.other
        )


@check(
    "tenants.same-id", "should", "Two tenants may use the same id, each with its own times.", "protocol, section 5.4"
)
def same_id(trial: Trial) -> None:
    state = trial.stored(updatedAt=LATER)
    theirs = trial.state(id=state["id"], tenant=trial.other, content=versioned("theirs, and older"))
    answer = trial.client_of(trial.other).save(theirs)
    trial.expect(answer, 204, *_REFUSED, what="POST of an older state under the same id")
    if answer.status == 204:
        trial.expect_content(state["id"], theirs["content"], "the other tenant's content", tenant=trial.other)
    _still_there(trial, state)


@check(
    "tenants.claim", "should", "A state whose tenant is not the path's is refused and stored for neither tenant.", "C01"
)
def claim(trial: Trial) -> None:
    state = trial.state()
    trial.made.add((trial.other, state["id"]))
    trial.expect(trial.post(trial.token(state, tenant=trial.other)), 400, what="tenant differs, aud matches")
    trial.expect_absent(state["id"], "its tenant is not the one in the path")
    trial.expect(trial.client_of(trial.other).load(state["id"]), *_REFUSED, what="GET by the tenant of the claim")


@check("tenants.token", "must", "A token for one tenant cannot be stored under another.", "B17, C01")
def token(trial: Trial) -> None:
    state = trial.state()
    trial.made.add((trial.other, state["id"]))
    answer = trial.client_of(trial.other).post([{"token": trial.token(state)}])
    trial.expect_refused(answer, "a token for another tenant than the path's")
    trial.expect(trial.client_of(trial.other).load(state["id"]), *_REFUSED, what="GET by the other tenant")


@check("tenants.signature", "must", "A signature for one tenant gives no access to another tenant's paths.", "A15, A17")
def signature(trial: Trial) -> None:
    state = trial.stored()
    own = trial.path(state["id"])
    for method, path, body in (
        ("GET", own, None),
        ("DELETE", trial.path(), json.dumps([state["id"]]).encode()),
    ):
        elsewhere = trial.path(tenant=trial.other)
        for headers in (
            trial.client_of(trial.other).headers(elsewhere),
            trial.client_of(trial.other).headers(path),
            trial.client.headers(path, aud=trial.other),
        ):
            trial.expect(trial.client.call(method, path, body, headers), 401, what=f"{method} as another tenant")
    _still_there(trial, state)


@check("tenants.jti", "should", "Two tenants that use the same jti do not affect each other.", "protocol, section 3.4")
def jti(trial: Trial) -> None:
    shared = f"shared-{trial.state()['id']}"
    for tenant in (trial.tenant, trial.other):
        client, path = trial.client_of(tenant), trial.path(tenant=tenant)
        answer = client.call("DELETE", path, json.dumps([tenant]).encode(), client.headers(path, jti=shared))
        if tenant == trial.tenant:
            trial.expect(answer, 204, what="the first tenant's DELETE")
        elif client.load(tenant).status == 404:  # the receiver serves the other tenant
            trial.expect(answer, 204, what="the other tenant's DELETE under the same jti")
