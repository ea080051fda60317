"""What the checks of the request signature share."""

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
    """Fail unless each signature that a function of ``variants`` makes for a path is answered 401, without effect.

    First a good request shows that the keys are right, at the end another one that the state is as it was.
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
    trial.expect_content(state["id"], state["content"], "the state as it was before the refused requests")


def refused_claims(trial: Trial, variants: Mapping[str, JSONObject], methods: tuple[str, ...] = METHODS) -> None:
    """As ``refused``, for signatures whose claims are changed (removed where they are ``...``)."""
    refused(trial, makers(variants, lambda changes, path: trial.signature(path, **changes)), methods)


def makers(values: Mapping[str, _T], make: Callable[[_T, str], str | None]) -> dict[str, Make]:
    """Return what makes a signature of each of ``values``: ``make``, called with the value and the path."""
    return {name: partial(make, value) for name, value in values.items()}


def refused_headers(trial: Trial, *headers: JSONObject) -> None:
    """As ``refused``, for signatures with these headers."""
    named = {json.dumps(header): header for header in headers}
    make = makers(named, lambda header, path: trial.signature(path, header=header))
    refused(trial, make, methods=("GET", "DELETE"))


def literal(trial: Trial, claim: str, text: str) -> Make:
    """Return what makes a signature whose ``claim`` is ``text`` to the letter, which no JSON library might write."""
    header = {"alg": "ES384", "kid": trial.keys.platform.kid}

    def make(path: str) -> str:
        claims = json.dumps(trial.claims(path, **{claim: "PLACE"})).replace('"PLACE"', text)
        return forging.jws(header, claims.encode(), trial.keys.platform.jwk)

    return make
