"""The simulated platform's model: regions, restrictions, stores and their keys, modes, sizes, made-up runs."""

import json
import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest

from receiver.mock_platform import keyfiles, sizes, tokens
from receiver.mock_platform.keys import KeyFault, KeyPair, new_store
from receiver.mock_platform.live_runs import Flow, LiveRun, NotARun
from receiver.mock_platform.model import Mode, Refusal, StorageSettings, Tenant
from receiver.mock_platform.platform import Holdings, Platform, checked_endpoint
from receiver.mock_platform.regions import COUNTRIES, REGIONS, Restriction, nearest
from receiver.states import Instant
from tests.support.paths import ROOT

TENANT = "11111111-2222-4333-8444-555555555555"
FLOW = Flow.named(TENANT, "Claim")


class Clock:
    def __init__(self):
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.now


def refused(status, text):
    return pytest.raises(Refusal, match=re.escape(text), check=lambda refusal: refusal.status == status)


def test_every_country_of_iso_3166_has_its_nearest_region():
    table = resources.files("tzdata").joinpath("zoneinfo/iso3166.tab").read_text()
    assert {line[:2] for line in table.splitlines() if not line.startswith("#")} == COUNTRIES
    served = {country: nearest(country).code for country in COUNTRIES}
    assert set(served.values()) == set(REGIONS)
    some = {"FR": "EU", "IE": "GB", "GB": "GB", "IN": "SG", "NZ": "AU", "MX": "US", "GL": "CA", "ZA": "EU", "JP": "SG"}
    assert {country: served[country] for country in some} == some


@pytest.mark.parametrize(
    ("restriction", "country", "reason"),
    [
        (Restriction(), "FR", None),
        (Restriction(countries=frozenset({"SG"})), "SG", None),
        (Restriction(countries=frozenset({"SG"})), "MY", "users from SG only; this one is in MY"),
        (Restriction(regions=frozenset({"SG"})), "MY", None),
        (Restriction(regions=frozenset({"EU", "SG"})), "US", "runs in EU, SG only; a user in US is served by US"),
        (Restriction(frozenset({"GB"}), frozenset({"GB"})), "IE", "users from GB only; this one is in IE"),
    ],
)
def test_a_restriction_refuses_with_a_reason(restriction, country, reason):
    refusal = restriction.refusal("it", nearest(country), country)
    assert refusal is reason is None or reason in refusal


def test_restrictions_of_the_tenant_and_of_the_flow_both_hold():
    tenant = Tenant(TENANT, "T", restriction=Restriction(regions=frozenset({"EU", "GB"})))
    tenant.flow_restrictions["Claim"] = Restriction(countries=frozenset({"GB"}))
    tenant.check_access("Claim", nearest("GB"), "GB")
    tenant.check_access("Survey", nearest("FR"), "FR")
    with refused(403, "the flow Claim accepts users from GB only; this one is in FR"):
        tenant.check_access("Claim", nearest("FR"), "FR")
    with refused(403, "the tenant T runs in EU, GB only; a user in US is served by US"):
        tenant.check_access("Survey", nearest("US"), "US")


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        (StorageSettings(), Mode.PLATFORM),
        (StorageSettings(False, False, "id"), Mode.PLATFORM),
        (StorageSettings(True, False, "id"), Mode.EXTERNAL),
        (StorageSettings(True, True, "id"), Mode.BOTH),
    ],
)
def test_the_settings_give_the_three_modes(settings, mode):
    settings.check()
    assert settings.mode is mode


def test_settings_that_contradict_each_other_are_refused():
    with refused(400, "enableReplication needs enableStates"):
        StorageSettings(False, True, "id").check()
    with refused(400, "enableStates needs globalStoreId"):
        StorageSettings(True, False, None).check()


def test_a_rotation_overlaps_and_ends():
    store = Platform().register("s", "http://127.0.0.1:1")
    old = store.in_use
    with refused(409, "there are no new keys"):
        store.use_keys()
    new = store.make_keys()
    assert store.in_use is old
    assert store.accepts(old)
    assert not store.accepts(new)
    with refused(409, "new keys have already been made"):
        store.make_keys()
    store.use_keys()
    assert (store.in_use, store.made) == (new, None)
    assert store.accepts(old)
    assert [one["stage"] for one in store.as_json()["keys"]] == ["in use", "still accepted"]
    store.retire_keys()
    assert not store.accepts(old)
    assert store.accepts(new)


def test_what_is_shown_of_a_store_and_a_tenant_holds_no_key():
    platform = Platform()
    store = platform.register("s", "https://store.example.com", "FR")
    store.make_keys()
    shown = json.dumps(store.as_json()) + repr(store) + json.dumps(platform.add_tenant(TENANT, "T").as_json())
    assert store.in_use.platform.kid in shown
    for keys in (store.in_use, store.made):
        for members in (keys.platform.private(), keys.receiver.private()):
            assert not [name for name in "xyd" if members[name] in shown]


@pytest.mark.parametrize(
    "endpoint",
    [
        *("", "x", "ftp://a", "http://", "http://a b", "http://a/path", "http://a?x", "http://a#x", "http://u:p@a"),
        *("http://a:99999", "http://a:0", "http://[::1", "http://ä", "http://a\n", "file:///etc/passwd"),
    ],
)
def test_an_endpoint_is_the_url_of_a_host(endpoint):
    with refused(400, "endpoint must"):
        checked_endpoint(endpoint)


def test_an_endpoint_may_end_with_a_slash():
    assert checked_endpoint("https://store.example.com:8443/") == "https://store.example.com:8443"
    assert checked_endpoint("http://[::1]:8080") == "http://[::1]:8080"


def test_key_files_are_those_of_the_receiver_and_are_read_back(tmp_path):
    keys = new_store()
    names = sorted(path.name for path in keyfiles.write(tmp_path / "keys", keys))
    kinds = ("mock-platform", "platform", "receiver")
    kids = (keys.platform.kid, keys.platform.kid, keys.receiver.kid)
    assert names == [f"{kind}-{kid}.json" for kind, kid in zip(kinds, kids, strict=True)]
    read = keyfiles.read(tmp_path / "keys")
    assert (read.platform.private(), read.receiver.private()) == (keys.platform.private(), keys.receiver.private())
    with pytest.raises(FileExistsError):
        list(keyfiles.write(tmp_path / "keys", keys))
    newer = new_store()
    list(keyfiles.write(tmp_path / "keys", newer))
    assert keyfiles.read(tmp_path / "keys").platform.kid == newer.platform.kid


def test_missing_and_broken_key_files_are_named(tmp_path):
    with pytest.raises(KeyFault, match=r"mock-platform-\*\.json: there is no such file"):
        keyfiles.read(tmp_path)
    for path in keyfiles.write(tmp_path, new_store()):
        last = path
    last.write_text("{")
    with pytest.raises(KeyFault, match=r"mock-platform-.*is not JSON"):
        keyfiles.read(tmp_path)


@pytest.mark.parametrize("change", [{"kid": 5}, {"kid": "x"}, {"x": "AAAA"}, {"y": "!"}, {"crv": "P-256"}, {"d": 1}])
def test_what_is_no_key_is_refused(change):
    with pytest.raises(KeyFault):
        KeyPair.parse(new_store().platform.private() | change)


def test_what_is_held_is_counted_and_dropped_only_unchanged():
    held = Holdings()
    state = {"tenant": TENANT, "id": "1", "content": "x" * 1000, "updatedAt": "a"}
    held.put(state)
    held.put(state | {"updatedAt": "b"})
    assert not held.drop(TENANT, "1", unless_newer_than="a")
    assert held.ids(TENANT) == ["1"]
    assert held.drop(TENANT, "1", unless_newer_than="b")
    assert not held.drop(TENANT, "1")
    with refused(507, "no space"):
        held.put(state | {"content": "x" * (17 << 20)})


def test_a_run_goes_on_from_its_content_alone():
    clock = Clock()
    run = LiveRun(TENANT, FLOW, 3, clock, -5)
    run.act("22222222-2222-4333-8444-555555555555", 8)
    run.join("SG")
    run.vote("yes")
    again = LiveRun.resumed(TENANT, {FLOW.id: FLOW}, run.content(), 99, clock)
    assert again.content() == run.content()
    assert (again.id, again.created_at, again.updated_at) == (run.id, run.created_at, run.updated_at)
    again.act(None, 0)
    again.vote("no")
    again.act("22222222-2222-4333-8444-555555555555", 8)
    again.vote("no")
    assert {vote["outcome"] for vote in again.votes} == {"no"}
    assert len(again.votes) == 2
    again.finish()
    assert json.loads(again.content())["isDone"] is True
    for broken in ("", "[]", "{}", "null", "7", run.content().replace(FLOW.id, TENANT)):
        with pytest.raises(NotARun):
            LiveRun.resumed(TENANT, {FLOW.id: FLOW}, broken, 1, clock)


def test_every_change_of_a_run_is_later_than_the_one_before_whatever_the_clock_and_the_region_say():
    clock = Clock()
    run = LiveRun(TENANT, FLOW, 3, clock, 10)
    moments = [Instant.parse(run.updated_at).nanoseconds]
    for number in range(50):
        clock.now += timedelta(microseconds=random.Random(number).randrange(-3, 4))
        run.act(None, (-5, 0, 8)[number % 3])
        run.step()
        moments.append(Instant.parse(run.updated_at).nanoseconds)
        assert re.fullmatch(r"2026-05-01T\d\d:00:0\d\.\d{7}[+-]\d\d:00", run.updated_at)
    assert moments == sorted(set(moments))


def test_a_run_has_what_a_real_state_has_and_grows_to_its_size():
    run = LiveRun(TENANT, FLOW, 3, Clock(), 1)
    for size in (20_000, 300_000, 2_000_000):
        run.grow(size)
        assert size <= len(run.content().encode()) < size + 2_000
    document = json.loads(run.content())
    assert {"stateEntries", "valueElementValues", "authorizationContext", "log", "userCreated"} <= set(document)
    for entry in document["stateEntries"]:
        assert entry["mapElementId"]["guid"] in FLOW.elements
        assert entry["userInteractions"][0]["manywhoUserId"] == run.user
    assert 3 * len(tokens.seal_state(run.state(), new_store())) < 2 * 2_000_000  # words, not noise: they compress


def test_sizes_follow_the_seed_and_reach_from_a_few_kilobytes_to_several_megabytes():
    drawn = [sizes.draw(chance) for chance in [random.Random(5)] for _ in range(20_000)]
    assert drawn[:100] == [sizes.draw(chance) for chance in [random.Random(5)] for _ in range(100)]
    assert 6 << 10 <= min(drawn) < 8 << 10
    assert 4 << 20 < max(drawn) <= 6 << 20
    shares = Counter("small" if size < 24 << 10 else "large" if size > 1 << 20 else "middle" for size in drawn)
    assert 0.48 < shares["small"] / len(drawn) < 0.52
    assert 0.005 < shares["large"] / len(drawn) < 0.015


def test_the_manual_shows_the_sizes_as_they_are():
    assert sizes.chart() in (ROOT / "docs/explanation/performance.md").read_text()
