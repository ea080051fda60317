"""Room 1, who calls: times, audience, issuer, jti and path of a signature. Table A of the cases."""

import json
import time

import pytest

from receiver.mock_platform import tokens
from receiver.mock_platform.forging import jws
from tests.support.platform_client import assert_problem, loaded
from tests.support.signatures import SIGNATURE, body_of, claims_of, signed


def _signed_as_text(platform, claim, text):
    """Return a signature whose ``claim`` is ``text`` to the letter, which a JSON library might not write."""
    header = {"alg": "ES384", "kid": platform.keys.platform.kid}

    def signed(path):
        claims = json.dumps(claims_of(platform, path, **{claim: "PLACE"})).replace('"PLACE"', text)
        return jws(header, claims.encode(), platform.keys.platform.jwk)

    return signed


@pytest.mark.case("A12")
@pytest.mark.parametrize(
    "exp",
    ["null", '"1e9"', "[]", "{}", "true", "1e400", "-1e400", "Infinity", "NaN", "-1", "1" * 5000, "1" * 400, '""', "0"],
)
def test_an_exp_that_is_no_time_is_refused(check_refused, platform, exp):
    check_refused(_signed_as_text(platform, "exp", exp))


@pytest.mark.case("A12")
def test_a_missing_exp_is_refused(check_refused, platform):
    check_refused(signed(platform, exp=...))


@pytest.mark.case("A13", "A14")
@pytest.mark.parametrize(
    ("claim", "offset", "accepted"),
    [
        *(("exp", -31, False), ("exp", -28, True), ("exp", 300, True), ("exp", 328, True), ("exp", 333, False)),
        *(("exp", 365 * 86400, False), ("nbf", 33, False), ("nbf", 28, True), ("nbf", -1e9, True)),
    ],
)
def test_times_are_judged_with_the_clock_skew(platform, state, claim, offset, accepted):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    answer = platform.call("GET", path, headers=platform.headers(path, **{claim: time.time() + offset}))
    assert answer.status == (200 if accepted else 401)


@pytest.mark.case("A14")
@pytest.mark.parametrize("nbf", ["[]", "-Infinity", '"0"', "true", "1e400", "1" * 5000])
def test_an_nbf_that_is_no_time_is_refused(check_refused, platform, nbf):
    check_refused(_signed_as_text(platform, "nbf", nbf))


@pytest.mark.case("A15")
@pytest.mark.parametrize(
    "aud",
    [
        "0d5c7a52-4f0e-4a8c-9d5b-3b6a1f2e7c90",
        [],
        {},
        None,
        ...,
        "",
        1,
        [1],
        [None],
        [[]],
        "UPPER",
        ["UPPER"],
        "manywho",
        "\ud800",
    ],
)
def test_an_audience_without_the_tenant_is_refused(check_refused, platform, aud):
    if aud in ("UPPER", ["UPPER"]):
        aud = platform.tenant.upper()
    check_refused(signed(platform, aud=aud))


@pytest.mark.case("A15")
def test_an_audience_may_be_a_list_that_holds_the_tenant(platform, state):
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path, aud=["somebody", platform.tenant])
    assert platform.call("POST", path, body_of(platform, state), headers).status == 204
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("A16")
@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "ManyWho"},
        {"iss": ["manywho"]},
        {"iss": None},
        {"iss": ...},
        {"sub": ...},
        {"sub": None},
        {"sub": ""},
        {"sub": 1},
    ],
)
def test_another_issuer_or_a_missing_subject_is_refused(check_refused, platform, changes):
    check_refused(signed(platform, **changes))


@pytest.mark.case("A16")
@pytest.mark.parametrize("jti", [..., None, "", 1, [], "x" * 256, "\ud800", "a\0b"])
def test_a_change_without_a_usable_jti_is_refused(platform, state, unchanged, jti):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}"
    with unchanged():
        for method, body in (("POST", body_of(platform, state)), ("DELETE", json.dumps([state["id"]]).encode())):
            headers = platform.headers(path) | {SIGNATURE: signed(platform, jti=jti)(path)}
            assert_problem(platform.call(method, path, body, headers), 401)


@pytest.mark.case("A17")
def test_a_signature_for_another_path_is_refused(check_refused, platform):
    for change in (
        *(lambda path: ..., lambda path: None, lambda path: [path], lambda path: "", lambda path: "/"),
        *(lambda path: path[:-1], lambda path: path + "/", lambda path: path + "?a=b", lambda path: path.upper()),
        *(lambda path: "http://localhost" + path, lambda path: path.replace("storage", "%73torage")),
        *(lambda path: path.replace("/states/", "/states//"), lambda path: "/x/.." + path, lambda path: path + "\0"),
    ):
        check_refused(
            lambda path, change=change: tokens.sign(
                claims_of(platform, path, path=change(path)), platform.keys.platform
            )
        )


@pytest.mark.case("A17")
def test_the_query_is_not_part_of_the_signed_path(platform, state):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    assert platform.call("GET", path + "?cache=1", headers=platform.headers(path)).status == 200
    assert platform.call("GET", path + "?cache=1", headers=platform.headers(path + "?cache=1")).status == 401


@pytest.mark.case("A17")
def test_the_signed_path_is_the_one_that_was_sent_percent_encoding_included(platform, state):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    encoded = path.replace("states", "%73tates")
    assert platform.call("GET", encoded, headers=platform.headers(encoded)).status == 200
    assert platform.call("GET", encoded, headers=platform.headers(path)).status == 401


@pytest.mark.case("A20")
@pytest.mark.parametrize("audience", ["as in the path", "lower case"])
def test_a_path_in_upper_case_means_the_same_state(platform, state, audience):
    platform.save(state)
    upper = f"/api/storage/1/states/{platform.tenant.upper()}/{state['id'].upper()}"
    aud = platform.tenant.upper() if audience == "as in the path" else platform.tenant
    answer = platform.call("GET", upper, headers=platform.headers(upper, aud=aud))
    assert platform.open(state["id"], answer) == state["content"]
    lower_claim = platform.headers(upper, aud=aud, path=upper.lower())
    assert platform.call("GET", upper, headers=lower_claim).status == 401


def test_a_tenant_or_id_that_is_no_uuid_is_not_found_once_the_signature_holds(platform):
    for path in ("/api/storage/1/states/here/there", f"/api/storage/1/states/{platform.tenant}/there"):
        tenant = path.split("/")[5]
        assert_problem(platform.call("GET", path, headers=platform.headers(path, aud=tenant)), 404)
        assert_problem(platform.call("GET", path, headers={}), 401)
    path = "/api/storage/1/states/here"
    assert_problem(platform.call("POST", path, b"[]", platform.headers(path, aud="here")), 404)


def test_a_signature_expires_with_the_receivers_clock(platform, state, clock):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    headers = platform.headers(path)
    for offset, status in ((0, 200), (325, 200), (335, 401), (-325, 401), (-20, 200)):
        clock.offset = offset
        assert platform.call("GET", path, headers=headers).status == status
