"""The four calls: tenants, ids, times, batches and the replay binding. Part C of the cases, and case A21."""

import json
import os
import random
import time
import uuid

import pytest

from receiver.app import create_app
from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun
from receiver.settings import Settings
from tests.support.platform_client import InProcess, assert_problem, loaded
from tests.support.states import rows_of


def changed(state, **changes):
    """Return ``state`` with claims replaced, or removed where they are ``...``."""
    return {name: value for name, value in (state | changes).items() if value is not ...}


def save_request(platform, state) -> tuple[str, dict, bytes]:
    """Return path, headers and body of a save, to be sent more than once or changed."""
    path = f"/api/storage/1/states/{platform.tenant}"
    return path, platform.headers(path), json.dumps([{"token": tokens.seal_state(state, platform.keys)}]).encode()


def test_health_needs_no_signature_and_tells_nothing(platform):
    answer = platform.health()
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_a_saved_state_is_answered_byte_for_byte_and_deleted_for_good(platform, state):
    answer = platform.save(state)
    assert (answer.status, answer.body) == (204, b"")
    assert set(answer.headers) == {"x-request-id"}
    answer = platform.load(state["id"])
    assert (answer.status, set(answer.json)) == (200, {"token"})
    assert answer.headers["cache-control"] == "no-store"
    assert platform.open(state["id"], answer) == state["content"]
    assert platform.delete([state["id"]]).status == 204
    assert_problem(platform.load(state["id"]), 404)
    assert platform.delete([state["id"]]).status == 204


@pytest.mark.case("E08")
def test_head_answers_like_get_without_the_body(platform, state):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    answer = platform.call("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")
    assert platform.call("HEAD", path[:-1] + "x").status == 404


def test_members_that_the_platform_may_add_are_ignored(platform, state):
    claims = tokens.state_claims(state) | {"newClaim": {"a": [1]}}
    token = tokens.seal(tokens.sign(claims, platform.keys.platform), platform.keys.receiver)
    assert platform.post([{"token": token, "newMember": 1}]).status == 204
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("C01")
def test_a_state_of_another_tenant_is_refused(platform, client, keys, state, unchanged):
    other = InProcess(client, str(uuid.uuid4()), keys)
    with unchanged():
        claims = tokens.state_claims(state) | {"tenant": other.tenant}
        token = tokens.seal(tokens.sign(claims, keys.platform), keys.receiver)
        assert_problem(platform.post([{"token": token}]), 400, "item 0: tenant")
        assert_problem(other.post([{"token": token}]), 400, "item 0: aud")


@pytest.mark.case("C03")
def test_ids_of_another_tenant_are_neither_read_nor_deleted_nor_replaced(platform, client, keys, state):
    other = InProcess(client, str(uuid.uuid4()), keys)
    assert platform.save(state).status == 204
    assert_problem(other.load(state["id"]), 404)
    assert other.delete([state["id"]]).status == 204
    assert loaded(platform, state["id"]) == state["content"]
    assert other.save(state | {"tenant": other.tenant, "content": "theirs"}).status == 204
    assert loaded(platform, state["id"]) == state["content"]
    assert loaded(other, state["id"]) == "theirs"
    assert platform.delete([state["id"]]).status == 204
    assert loaded(other, state["id"]) == "theirs"


REQUIRED = ("id", "tenant", "flow", "flowVersion", "isDone", "createdAt", "updatedAt", "content")
NULLABLE = ("parent", "currentMapElement", "currentUser", "expiresAt")


WRONG = {"missing": ..., "null": None, "number": 1, "float": 1.5, "true": True, "list": [], "object": {}}
WRONG |= {"text": "true", "surrogate": "\ud800", "nul": "a\0b", "nested": [None]}
VALID = {("isDone", "true"), ("content", "text")}


@pytest.mark.case("C05")
@pytest.mark.parametrize(("claim", "wrong"), [(c, w) for c in REQUIRED for w in WRONG if (c, w) not in VALID])
def test_a_required_claim_that_is_missing_or_of_another_type_is_named(platform, state, unchanged, claim, wrong):
    claims = changed(tokens.state_claims(state), **{claim: WRONG[wrong]})
    token = tokens.seal(tokens.sign(claims, platform.keys.platform), platform.keys.receiver)
    with unchanged():
        assert_problem(platform.post([{"token": token}]), 400, f"item 0: {claim}")


@pytest.mark.case("C05")
@pytest.mark.parametrize("value", ["true", 1, 0, "", "on"])
def test_what_only_resembles_a_boolean_is_refused(platform, state, unchanged, value):
    with unchanged():
        assert_problem(platform.save(changed(state, isDone=value)), 400, "item 0: isDone: must be true or false")


@pytest.mark.case("C05")
@pytest.mark.parametrize("claim", NULLABLE)
def test_a_nullable_claim_may_be_null_empty_or_absent_and_nothing_else(platform, state, store, claim):
    for value in (None, "", ...):
        assert platform.save(changed(state, **{claim: value})).status == 204
    for value in (1, [], {}, True, "x", "null", " "):
        assert_problem(platform.save(changed(state, **{claim: value})), 400, f"item 0: {claim}")
    found = store.find(state["tenant"], state["id"])
    assert (found.parent, found.expires_at) == (None, None)


@pytest.mark.case("C05")
@pytest.mark.parametrize(
    "value", ["{%s}", "urn:uuid:%s", "hex", "%s\n", " %s", "short", "%s0", "0x%s", "dashes", "ARABIC"]
)
def test_an_id_in_another_spelling_than_8_4_4_4_12_is_refused(platform, state, unchanged, value):
    id = state["id"]
    spelled = {
        "hex": id.replace("-", ""),
        "short": id[:-1],
        "dashes": id[:8] + id[9:13] + "-" + id[13:],
        "ARABIC": id[:-1] + "\u0665",
    }.get(value) or value % id
    with unchanged():
        assert_problem(platform.save(state | {"id": spelled, "sub": spelled}), 400, "item 0: id")
        assert_problem(platform.delete([spelled]), 400, "item 0")


@pytest.mark.case("C06")
def test_a_batch_is_stored_whole_or_not_at_all(platform, tenant, unchanged):
    states = [FlowRun(tenant, seed).state() for seed in range(50)]
    with unchanged():
        assert_problem(platform.save(states[0], changed(states[1], flow="x")), 400, "item 1: flow")
        assert_problem(platform.save(*states[:-1], changed(states[-1], updatedAt="x")), 400, "item 49: updatedAt")
        items = [{"token": tokens.seal_state(state, platform.keys)} for state in states[:2]]
        items[1]["token"] = items[1]["token"][:-4]
        assert_problem(platform.post(items), 400, "item 1: the token cannot be opened")
    assert platform.save(*states).status == 204
    for state in states:
        assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("C06")
def test_an_empty_array_is_fine_and_changes_nothing(platform, state, store):
    platform.save(state)
    before = rows_of(store.path)["states"]
    assert (platform.post([]).status, platform.delete([]).status) == (204, 204)
    assert rows_of(store.path)["states"] == before


@pytest.mark.case("C08")
def test_a_late_older_save_is_ignored_and_an_equal_one_replaces(platform, state):
    times = ["2026-01-01T10:00:00.0000002Z", "2026-01-01T10:00:00.0000001Z", "2026-01-01T11:00:00.0000002+01:00"]
    assert platform.save(state | {"updatedAt": times[0], "content": "first"}).status == 204
    assert platform.save(state | {"updatedAt": times[1], "content": "older"}).status == 204
    assert loaded(platform, state["id"]) == "first"
    assert platform.save(state | {"updatedAt": times[2], "content": "equal"}).status == 204
    assert loaded(platform, state["id"]) == "equal"


@pytest.mark.case("C08")
def test_any_order_of_arrival_ends_with_the_newest(platform, state):
    versions = [state | {"updatedAt": f"2026-01-01T00:00:00.{n:09d}Z", "content": str(n)} for n in range(30)]
    random.Random(8).shuffle(versions)
    for version in versions:
        assert platform.save(version).status == 204
    assert loaded(platform, state["id"]) == "29"


@pytest.mark.case("C10")
@pytest.mark.parametrize(
    ("one", "same"),
    [
        ("2026-03-01T00:30:00+01:00", "2026-02-28T23:30:00Z"),
        ("2026-02-28T23:30:00.000-00:00", "2026-02-28T23:30:00.000000000Z"),
        ("2026-02-28T23:30:00.1Z", "2026-02-28T23:30:00.100000+00:00"),
        ("2026-02-28T23:30:00.1234567Z", "2026-03-01T05:00:00.123456700+05:30"),
        ("2024-02-29T23:59:59.9999999-12:00", "2024-03-01T11:59:59.999999900Z"),
        ("0001-01-01T00:00:00+00:00", "0001-01-01T14:00:00+14:00"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999999900Z"),
    ],
)
def test_the_same_instant_in_another_spelling_is_a_tie(platform, state, one, same):
    for first, second in ((one, same), (same, one)):
        platform.delete([state["id"]])
        assert platform.save(state | {"updatedAt": first, "content": "first"}).status == 204
        assert platform.save(state | {"updatedAt": second, "content": "second"}).status == 204
        assert loaded(platform, state["id"]) == "second"


@pytest.mark.case("C10")
@pytest.mark.parametrize("claim", ["createdAt", "updatedAt", "expiresAt"])
@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-01T00:00:00", "now", "infinity", "2026-02-30T00:00:00Z", "2026-01-01T00:00:60Z", "2026-01-01"),
        *("2026-01-01 00:00:00Z", "2026-01-01T24:00:00Z", "20260101T000000Z", "2026-W01-1T00:00:00Z", "1767225600"),
        *("2026-01-01T00:00:00.Z", "2026-01-01T00:00:00.1234567890Z", "2026-01-01T00:00:00+25:00", "2026-01-01T00Z"),
        *("2026-01-01T00:00:00+01:60", "2026-01-01T00:00:00 Z", "2026-13-01T00:00:00Z", "0000-01-01T00:00:00Z"),
        *("10000-01-01T00:00:00Z", "\u0662026-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n", "-2026-01-01T00:00:00Z"),
    ],
)
def test_a_time_that_is_not_iso_8601_with_an_offset_is_refused(platform, state, unchanged, claim, text):
    with unchanged():
        assert_problem(platform.save(state | {claim: text}), 400, f"item 0: {claim}: must be an ISO 8601 time")


@pytest.mark.case("C12")
def test_an_expired_state_is_answered_until_it_is_purged(platform, tenant, store):
    now = time.time_ns()
    past, soon = now // 10**9 - 1, now // 10**9 + 60
    shown = {
        "past": time.strftime("%Y-%m-%dT%H:%M:%S.0000001Z", time.gmtime(past - 1)),
        "past in another zone": time.strftime("%Y-%m-%dT%H:%M:%S-11:00", time.gmtime(past - 11 * 3600)),
        "soon": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon)),
        "soon in another zone": time.strftime("%Y-%m-%dT%H:%M:%S+14:00", time.gmtime(soon + 14 * 3600)),
        "never": None,
    }
    runs = {name: FlowRun(tenant, seed).state() | {"expiresAt": at} for seed, (name, at) in enumerate(shown.items())}
    assert platform.save(*runs.values()).status == 204
    for state in runs.values():
        assert loaded(platform, state["id"]) == state["content"]
    assert store.purge(now) == 2
    left = {name for name, state in runs.items() if platform.load(state["id"]).status == 200}
    assert left == {"soon", "soon in another zone", "never"}


@pytest.mark.case("C13")
@pytest.mark.parametrize(
    "body",
    [b"null", b"{}", b'""', None, b"", b'"id"', b"[1]", b"[null]", b"[[]]", b"[true]", b"1", b"[{}]", b'[""]', b" "],
)
def test_a_body_that_is_no_array_of_ids_deletes_nothing(platform, state, unchanged, body):
    platform.save(state)
    path = f"/api/storage/1/states/{platform.tenant}"
    with unchanged():
        assert_problem(platform.call("DELETE", path, body), 400)
        headers = platform.headers(path) | {"Content-Type": "application/json"}
        if body:
            mixed = b'["' + state["id"].encode() + b'",' + body.strip(b"[]") + b"]"
            assert_problem(platform.call("DELETE", path, mixed, headers), 400)


@pytest.mark.case("D07")
@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "body",
    [
        *(
            b"[" * 100_000,
            b"[" * 100_000 + b"]" * 100_000,
            b"null",
            b"{}",
            b"[" + b"1" * 5000 + b"]",
            b"[NaN]",
            b"[1e400]",
        ),
        *(
            b"\xef\xbb\xbf",
            b"\xef\xbb\xbf\xef\xbb\xbf[]",
            b"[\xef\xbb\xbf]",
            "[]".encode("utf-16"),
            "[]".encode("utf-32"),
            b'["\xff"]',
            b'["\xed\xa0\x80"]',
            b"[],",
            b"[]]",
        ),
        *(b'[{"token": "a", "token": "b"}]', b'[{"a":' * 50_000, b"[-Infinity]", b"['a']", b"\0", b"[\n", b"// x\n[]"),
    ],
    ids=repr,
)
def test_a_body_that_is_not_one_unambiguous_json_text_is_refused(platform, unchanged, method, body):
    with unchanged():
        assert_problem(platform.call(method, f"/api/storage/1/states/{platform.tenant}", body), 400)


@pytest.mark.case("D07")
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1" * 5000])
def test_what_is_no_json_is_refused_also_where_it_would_be_ignored(platform, state, unchanged, value):
    token = json.dumps(tokens.seal_state(state, platform.keys))
    with unchanged():
        path = f"/api/storage/1/states/{platform.tenant}"
        assert_problem(platform.call("POST", path, f'[{{"token": {token}, "x": {value}}}]'.encode()), 400)


@pytest.mark.case("D07")
def test_the_last_of_two_tokens_in_one_item_does_not_win(platform, state, unchanged):
    token = json.dumps(tokens.seal_state(state, platform.keys))
    body = f'[{{"token": "x", "token": {token}}}]'.encode()
    with unchanged():
        answer = platform.call("POST", f"/api/storage/1/states/{platform.tenant}", body)
        assert_problem(answer, 400, "The body holds a member twice")


@pytest.mark.case("A21")
def test_the_identical_request_again_is_a_retry_without_a_second_effect(platform, state):
    path, save, body = save_request(platform, state)
    assert platform.call("POST", path, body, save).status == 204
    assert platform.delete([state["id"]]).status == 204
    for _ in range(100):
        assert platform.call("POST", path, body, save).status == 204
    assert platform.load(state["id"]).status == 404  # the retry did not bring it back
    assert platform.save(state).status == 204
    assert loaded(platform, state["id"]) == state["content"]


def test_one_signature_serves_one_change(platform, state, unchanged):
    path, headers, body = save_request(platform, state)
    assert platform.call("POST", path, body, headers).status == 204
    with unchanged():
        assert_problem(platform.call("DELETE", path, json.dumps([state["id"]]).encode(), headers), 401)
        assert_problem(platform.call("DELETE", path, b"not even JSON", headers), 401)
        assert_problem(platform.call("POST", path, body.replace(b"}]", b"} ]"), headers), 401)
        assert_problem(platform.call("POST", path, b"[]", headers), 401)
    assert loaded(platform, state["id"]) == state["content"]


def test_a_retry_is_answered_even_when_its_tokens_can_no_longer_be_opened(platform, state, monkeypatch):
    path, headers, body = save_request(platform, state)
    assert platform.call("POST", path, body, headers).status == 204
    monkeypatch.setattr("receiver.envelope.TOKEN_LIFETIME", -(10**9))
    assert platform.call("POST", path, body, headers).status == 204
    assert_problem(platform.call("POST", path, body, platform.headers(path)), 400, "item 0: exp")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("depth", [255, 1000, 2000])
def test_a_body_that_is_nested_deep_is_refused(platform, unchanged, method, depth):
    with unchanged():
        body = (depth * "[" + depth * "]").encode()
        assert platform.call(method, f"/api/storage/1/states/{platform.tenant}", body).status == 400


def test_a_large_retry_is_answered_before_anything_is_made_of_it(platform, state, monkeypatch):
    path, headers, body = save_request(platform, state | {"content": os.urandom(100_000).hex()})
    assert platform.call("POST", path, body, headers).status == 204
    monkeypatch.setattr("receiver.body.parse", lambda *_args: pytest.fail("parsed"))
    assert platform.call("POST", path, body, headers).status == 204
    assert_problem(platform.call("POST", path, body + b" ", headers), 401)


@pytest.mark.parametrize("item", ["1", "{}", '"a"', "null", "[]"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_body_of_very_many_bad_items_costs_little(ring, store, keys, tenant, method, item):
    many = InProcess(create_app(Settings(max_items=1_000_000), ring, store).test_client(), tenant, keys)
    path = f"/api/storage/1/states/{tenant}"
    for count, status in ((900_000, 400), (1_100_000, 413)):
        body = f"[{','.join([item] * count)}]".encode()
        began = time.process_time()
        assert many.call(method, path, body).status == status
        assert time.process_time() - began < 5  # an error for each item took over a minute


def test_a_jti_is_free_again_when_its_first_use_was_refused(platform, state):
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path)
    assert platform.call("POST", path, b"[{}]", headers).status == 400
    body = json.dumps([{"token": tokens.seal_state(state, platform.keys)}]).encode()
    assert platform.call("POST", path, body, headers).status == 204


def test_a_receipt_outlives_its_signature_by_the_skew(platform, state, clock):
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path, exp=time.time() + 1)
    assert platform.call("POST", path, b"[]", headers).status == 204
    clock.offset = 25  # the signature has expired and is still within the skew
    assert platform.delete([]).status == 204  # any change clears receipts whose time is over
    assert_problem(platform.call("DELETE", path, json.dumps([state["id"]]).encode(), headers), 401)
    assert platform.call("POST", path, b"[]", headers).status == 204


def test_tenants_do_not_share_their_jtis(platform, client, keys, state):
    other = InProcess(client, str(uuid.uuid4()), keys)
    for caller in (platform, other):
        path = f"/api/storage/1/states/{caller.tenant}"
        assert (
            caller.call("DELETE", path, json.dumps([caller.tenant]).encode(), caller.headers(path, jti="one")).status
            == 204
        )


@pytest.mark.parametrize(("replay", "status", "receipts"), [("observe", 204, 1), ("off", 204, 0), ("enforce", 401, 1)])
def test_what_the_replay_setting_does(ring, store, keys, tenant, state, caplog, replay, status, receipts):
    served = InProcess(create_app(Settings(replay=replay), ring, store).test_client(), tenant, keys)
    path = f"/api/storage/1/states/{tenant}"
    headers = served.headers(path)
    caplog.set_level("INFO")
    assert served.call("POST", path, b"[]", headers).status == 204
    assert served.call("DELETE", path, json.dumps([state["id"]]).encode(), headers).status == status
    assert len(rows_of(store.path)["receipts"]) == receipts
    logged = [record.levelname for record in caplog.records if "conflicting" in record.getMessage()]
    assert logged == (["WARNING"] if replay == "observe" else [])
    without = {name: value for name, value in tokens.request_claims(tenant, path).items() if name != "jti"}
    headers["X-ManyWho-Signature"] = tokens.sign(without, keys.platform)
    assert served.call("POST", path, b"[]", headers).status == status


def test_300_000_ids_in_one_delete(ring, store, keys, tenant, state):
    many = InProcess(create_app(Settings(max_items=300_001), ring, store).test_client(), tenant, keys)
    many.save(state)
    ids = [str(uuid.UUID(int=number)) for number in range(300_000)]
    assert many.delete([*ids, state["id"].upper()]).status == 204
    assert many.load(state["id"]).status == 404
    assert_problem(many.delete([*ids, "x", "y"]), 413, "STORAGE_MAX_ITEMS allows: 300001 items")


def test_more_items_than_the_limit_are_refused_before_any_is_opened(
    ring, store, keys, tenant, state, unchanged, monkeypatch
):
    few = InProcess(create_app(Settings(max_items=3), ring, store).test_client(), tenant, keys)
    assert few.save(*[state] * 3).status == 204
    assert few.delete([state["tenant"]] * 3).status == 204
    monkeypatch.setattr("receiver.envelope.open_states", lambda *_args: pytest.fail("opened"))
    item = {"token": tokens.seal_state(state, keys)}
    with unchanged():
        assert_problem(few.post([item] * 4), 413, "STORAGE_MAX_ITEMS allows: 3 items")
        assert_problem(few.delete([state["id"]] * 4), 413, "allows: 3 items")
        assert_problem(few.post([item | {"x": [0] * 50}]), 413, "allows: 3 items")  # what an item holds counts too


def test_the_limit_of_items_is_the_platforms_largest_batch_many_times_over(platform, state, unchanged):
    with unchanged():
        assert_problem(platform.delete([state["id"]] * 1001), 413, "allows: 1000 items")
    assert platform.delete([state["id"]] * 1000).status == 204
