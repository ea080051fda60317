"""Room 1, who calls: the keys of a signature, and what an unproven caller learns. Table A of the cases."""

import json
import uuid

import pytest

from receiver.app import create_app
from receiver.mock_platform import tokens
from receiver.mock_platform.forging import jws
from tests.support.platform_client import InProcess, assert_problem, loaded, ring_of
from tests.support.signatures import SIGNATURE, body_of, claims_of, signed


@pytest.mark.case("A04")
@pytest.mark.parametrize("kid", ["0d5c7a52-4f0e-4a8c-9d5b-3b6a1f2e7c90", None, 0, {}, [], "", "x" * 36, "\ud800", True])
def test_an_unknown_kid_is_refused(check_refused, platform, kid):
    header = {"alg": "ES384", "kid": kid}
    check_refused(lambda path: jws(header, claims_of(platform, path), platform.keys.platform.jwk))
    del header["kid"]
    check_refused(lambda path: jws(header, claims_of(platform, path), platform.keys.platform.jwk))


@pytest.mark.case("A11")
def test_a_signature_by_another_key_is_refused(check_refused, platform, foreign_keys):
    own = platform.keys
    for key in (own.receiver, foreign_keys.platform):
        for kid in (own.platform.kid, own.receiver.kid, foreign_keys.platform.kid):
            header = {"alg": "ES384", "kid": kid}
            check_refused(lambda path, header=header, key=key: jws(header, claims_of(platform, path), key.jwk))


@pytest.mark.case("A11")
def test_the_platform_key_of_another_tenant_is_refused(store, settings, keys, foreign_keys, state, tenant):
    other = str(uuid.uuid4())
    served = create_app(settings, ring_of(keys, foreign_keys, tenants=[tenant, other]), store)
    mine, theirs = InProcess(served.test_client(), tenant, keys), InProcess(served.test_client(), tenant, foreign_keys)
    assert mine.save(state).status == 204
    assert theirs.load(state["id"]).status == 401
    assert theirs.delete([state["id"]]).status == 401
    # signed by the right key, but naming or sealing to the keys of the other tenant
    headers = mine.headers(f"/api/storage/1/states/{tenant}/{state['id']}")
    headers["X-ManyWho-Platform-Key-ID"] = foreign_keys.platform.kid
    assert mine.call("GET", f"/api/storage/1/states/{tenant}/{state['id']}", headers=headers).status == 400
    sealed_wrong = tokens.seal(tokens.sign(tokens.state_claims(state), keys.platform), foreign_keys.receiver)
    signed_wrong = tokens.seal(tokens.sign(tokens.state_claims(state), foreign_keys.platform), keys.receiver)
    assert mine.post([{"token": sealed_wrong}]).status == 400
    assert mine.post([{"token": signed_wrong}]).status == 400
    assert loaded(mine, state["id"]) == state["content"]


@pytest.mark.case("A26")
@pytest.mark.parametrize("header", ["X-ManyWho-Platform-Key-ID", "X-ManyWho-Receiver-Key-ID"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "x",
        "{" + str(uuid.UUID(int=5)) + "}",
        uuid.UUID(int=5).hex,
        f"urn:uuid:{uuid.UUID(int=5)}",
        str(uuid.UUID(int=5)),
    ],
)
def test_a_key_id_that_names_no_key_is_a_bad_request(platform, state, unchanged, header, value):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}"
    calls = (
        ("POST", path, body_of(platform, state)),
        ("DELETE", path, json.dumps([state["id"]]).encode()),
        ("GET", f"{path}/{state['id']}", None),
    )
    with unchanged():
        for method, where, body in calls:
            headers = platform.headers(where)
            del headers[header]
            if value is not None:
                headers[header] = value
            assert_problem(platform.call(method, where, body, headers), 400, header)


def test_an_unproven_caller_is_told_nothing_about_keys_or_paths(platform):
    path = f"/api/storage/1/states/{platform.tenant}"
    bodies = set()
    for headers in ({}, {SIGNATURE: "x"}, platform.headers(path) | {SIGNATURE: "x", "X-ManyWho-Platform-Key-ID": "x"}):
        for method in ("POST", "DELETE"):
            answer = platform.call(method, path, b"not json", headers | {"Content-Type": "text/plain"})
            assert_problem(answer, 401)
            bodies.add(answer.body)
    assert len(bodies) == 1


def test_nothing_is_decrypted_or_parsed_before_the_signature_holds(platform, state, monkeypatch):
    def touched(*_args, **_kwargs):
        raise AssertionError("touched before the signature held")

    for name in (
        "receiver.body.parse",
        "receiver.body.read",
        "receiver.envelope.open_states",
        "receiver.envelope.seal_state",
    ):
        monkeypatch.setattr(name, touched)
    path = f"/api/storage/1/states/{platform.tenant}"
    for method, where in (("POST", path), ("DELETE", path), ("GET", f"{path}/{state['id']}")):
        headers = platform.headers(where) | {SIGNATURE: signed(platform, path="/elsewhere")(where)}
        assert platform.call(method, where, b"[]", headers).status == 401
