"""Shared by the checks of the request signature: expects refusals of many signatures at once."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from receiver.conformance.trial import LATER, Trial, versioned
from receiver.mock_platform import forging
from receiver.mock_platform.json_values import JSONObject

Make = Callable[[str], str | None]
METHODS = ("GET", "POST", "DELETE")
_T = TypeVar("_T")


def refused(trial: Trial, variants: Mapping[str, Make], methods: tuple[str, ...] = METHODS) -> None:
    """Fail unless every signature that ``variants`` make for a path is answered 401 and has no effect.

    A valid request comes first, to show that the keys are right, and last, to show that the state is unchanged.
    """
    state = trial.stored()
    calls = {
        "GET": (trial.path(state["id"]), None),
        "POST": (trial.path(), trial.body(state | {"updatedAt": LATER, "content": versioned("changed")})),
        "DELETE": (trial.path(), json.dumps([state["id"]]).encode()),
    }
    for name, make in variants.items():
        for method in methods:
            path, body = calls[method]
            answer = trial.client.call(method, path, body, trial.headers(path, signature=make(path)))
            trial.expect(answer, 401, what=f"{method}: {name}")
    trial.expect_content(state["id"], state["content"], "the state from before the refused requests")


def refused_claims(trial: Trial, variants: Mapping[str, JSONObject], methods: tuple[str, ...] = METHODS) -> None:
    """Do as ``refused`` with signatures whose claims are changed; ``...`` removes a claim."""
    refused(trial, makers(variants, lambda changes, path: trial.signature(path, **changes)), methods)


def makers(values: Mapping[str, _T], make: Callable[[_T, str], str | None]) -> dict[str, Make]:
    """Return a maker of signatures for each of ``values``; it calls ``make`` with the value and the path."""
    return {name: partial(make, value) for name, value in values.items()}


def refused_headers(trial: Trial, *headers: JSONObject) -> None:
    """Do as ``refused`` with signatures that have these headers."""
    named = {json.dumps(header): header for header in headers}
    make = makers(named, lambda header, path: trial.signature(path, header=header))
    refused(trial, make, methods=("GET", "DELETE"))


def literal(trial: Trial, claim: str, text: str) -> Make:
    """Return a maker of signatures whose ``claim`` is literally ``text``, even if no JSON library writes that."""
    header = {"alg": "ES384", "kid": trial.keys.platform.kid}

    def make(path: str) -> str:
        claims = json.dumps(trial.claims(path, **{claim: "PLACE"})).replace('"PLACE"', text)
        return forging.jws(header, claims.encode(), trial.keys.platform.jwk)

    return make
