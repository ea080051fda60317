"""Stage 1: what a caller without a valid signature learns, and the two key-id headers. Cases, table A."""

import json
import uuid

from receiver.conformance.registry import check
from receiver.conformance.trial import SIGNATURE, Trial
from receiver.mock_platform.keys import KeyPair


@check(
    "signature.before-body",
    "should",
    "A caller without a valid signature learns nothing: 401 comes before the receiver reads the body.",
    "protocol, section 10.6",
)
def before_body(trial: Trial) -> None:
    path = trial.path()
    bad = trial.signature(path, path="/elsewhere")
    for kind, body in (("text/plain", b"not JSON"), ("application/json", b"{"), ("application/json", b"[1]")):
        for method in ("POST", "DELETE"):
            headers = trial.headers(path, signature=bad) | {"Content-Type": kind}
            trial.expect(trial.client.call(method, path, body, headers), 401, what=f"{method} of {body.decode()}")
    headers = trial.headers(path, signature=bad) | {"X-ManyWho-Platform-Key-ID": "x"}
    trial.expect(trial.client.call("POST", path, b"[]", headers), 401, what="an invalid key id")


@check(
    "signature.one-answer",
    "should",
    "All refusals look the same, so a caller cannot tell which check failed.",
    "protocol, section 8.3",
)
def one_answer(trial: Trial) -> None:
    path = trial.path()
    forged = KeyPair(trial.keys.platform.kid, KeyPair.generate().jwk)
    signatures = {
        "none": None,
        "random text": "x",
        "a foreign key": trial.signature(path, key=forged),
        "an unknown kid": trial.signature(path, header={"alg": "ES384", "kid": str(uuid.uuid4())}),
        "expired": trial.signature(path, exp=1),
        "another path": trial.signature(path, path="/x"),
        "another tenant": trial.signature(path, aud=str(uuid.uuid4())),
    }
    bodies = {}
    for name, signature in signatures.items():
        answer = trial.client.call("DELETE", path, b"[]", trial.headers(path, signature=signature))
        bodies[trial.expect(answer, 401, what=name).body] = name
    if len(bodies) > 1:
        trial.fail("the same body for each 401", f"different ones came, as for {' and '.join(bodies.values())}")


@check(
    "signature.key-ids-missing",
    "must",
    "A request without a key-id header is answered 400, because no reply could be sealed.",
    "A26",
)
def key_ids_missing(trial: Trial) -> None:
    _key_ids(trial, "absent", "empty")


@check("signature.key-ids-malformed", "must", "A key-id header that is not a UUID is answered 400.", "A26")
def key_ids_malformed(trial: Trial) -> None:
    _key_ids(trial, "x", "{" + str(uuid.uuid4()) + "}")


@check(
    "signature.key-ids-unknown",
    "should",
    "A key-id header that names an unknown key is the caller's mistake: 400.",
    "protocol, section 3.1",
)
def key_ids_unknown(trial: Trial) -> None:
    _key_ids(trial, str(uuid.uuid4()))


def _key_ids(trial: Trial, *values: str) -> None:
    state = trial.stored()
    calls = (("GET", trial.path(state["id"]), None), ("DELETE", trial.path(), json.dumps([state["id"]]).encode()))
    for name in ("X-ManyWho-Platform-Key-ID", "X-ManyWho-Receiver-Key-ID"):
        for value in values:
            for method, path, body in calls:
                headers = trial.headers(path) | {name: "" if value == "empty" else value}
                if value == "absent":
                    del headers[name]
                trial.expect(trial.client.call(method, path, body, headers), 400, what=f"{method}: {name} {value}")
    trial.expect_content(state["id"], state["content"])


@check("signature.too-long", "should", "The receiver refuses a signature header of 64 kB and keeps running.", "E10")
def too_long(trial: Trial) -> None:
    state = trial.stored()
    path = trial.path(state["id"])
    answer = trial.client.call("GET", path, headers=trial.headers(path, signature="a" * 65_000))
    trial.expect(answer, 400, 401, 413, 431, what=f"{SIGNATURE} of 65,000 characters")
    trial.expect_content(state["id"], state["content"])
