"""Stage 2: the claims of a state's token around the state itself: times, issuer, audience, subject. Cases, table B."""

import time
import uuid

from receiver.conformance.checks.tokens import refused
from receiver.conformance.registry import check
from receiver.conformance.trial import Trial
from receiver.mock_platform.json_values import JSONObject


@check("tokens.exp", "must", "A state's token needs an expiry that is not past and at most 300 minutes ahead.", "B17")
def exp(trial: Trial) -> None:
    now = int(time.time())
    _refused_claims(trial, {"no exp": {"exp": ...}, "past": {"exp": now - 3600}, "in a day": {"exp": now + 86_400}})


@check("tokens.exp-300-minutes", "must", "The receiver accepts a token that is valid for exactly 300 minutes.", "B17")
def exp_300_minutes(trial: Trial) -> None:
    state = trial.state()
    trial.expect(trial.post(trial.token(state, exp=int(time.time()) + 300 * 60)), 204, what="exp in 300 minutes")
    trial.expect_content(state["id"], state["content"])


@check("tokens.iss", "must", "The receiver accepts states from the issuer manywho only.", "B17")
def iss(trial: Trial) -> None:
    _refused_claims(trial, {"another": {"iss": "somebody"}, "missing": {"iss": ...}})


@check("tokens.aud", "must", "A token for another tenant is not stored for this one.", "B17, C01")
def aud(trial: Trial) -> None:
    _refused_claims(trial, {"another tenant": {"aud": str(uuid.uuid4())}, "missing": {"aud": ...}})


@check("tokens.sub", "should", "The receiver refuses a token whose sub is not the state's id.", "B17")
def sub(trial: Trial) -> None:
    _refused_claims(trial, {"missing": {"sub": ...}, "another": {"sub": str(uuid.uuid4())}, "empty": {"sub": ""}})


@check("tokens.nbf", "must", "The receiver refuses a token that is not valid yet.", "B17")
def nbf(trial: Trial) -> None:
    _refused_claims(trial, {"in an hour": {"nbf": int(time.time()) + 3600}})


@check("tokens.claims-odd", "should", "Token claims of another type are answered 400, never 500.", "B17")
def claims_odd(trial: Trial) -> None:
    changes: list[JSONObject] = [
        {"exp": "1"},
        {"exp": True},
        {"exp": None},
        {"nbf": "1"},
        {"aud": []},
        {"aud": None},
        {"iss": ["manywho"]},
    ]
    _refused_claims(trial, {repr(change): change for change in changes}, 400)


def _refused_claims(trial: Trial, variants: dict[str, JSONObject], *allowed: int) -> None:
    state = trial.state()
    made = {name: trial.token(state, **changes) for name, changes in variants.items()}
    refused(trial, made, *allowed, state=state)
