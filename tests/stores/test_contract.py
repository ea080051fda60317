"""The Store contract: one behavioural suite, parametrised over every backend."""

import contextlib
import dataclasses
import itertools
import random
import subprocess
import sys
import threading

import pytest

from receiver.idempotency import Effect
from receiver.problems import ReplayRefused
from receiver.states import NANOSECONDS, Content, Instant
from receiver.stores import open_store
from receiver.stores.tally import tallies
from tests.support.backends import SERVERS, url_of_an_empty_store
from tests.support.states import NOW, OTHER, TENANT, a_receipt, a_state, uid

BACKENDS = ["sqlite", "filesystem", *SERVERS]
# Those that a fast run leaves out: two ways to PostgreSQL that differ little from the first.
SLOW = {"embedded", "pgbouncer"}
PARAMETERS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BACKENDS]
EDGES = ("0001-01-01T00:00:00+18:00", "9999-12-31T23:59:59.9999999-18:00", "1969-12-31T23:59:59.9Z")
UNSET = (
    "0001-01-01T00:00:00+00:00",
    "0001-01-01T00:00:00.0000000Z",
    "0001-01-01T00:00:00.0000000+14:00",
    "0001-01-01T00:00:00-08:00",
    "0001-12-31T23:59:59.9999999Z",
)
CONTENTS = ("", "\ufeff", "\u2028", "\U0010ffff", "e\u0301", "\x01", "'\"\\;--", "a" * 20_000_000)
CONTENTS += (
    '{"b":1, "a" : 2,"b":3}',
    "[1e400,1.0,-0,-0.0,NaN,1e131071]",
    "1" * 30,
    "\u202e\u05e9 \U0001f469\u200d\U0001f680 e\u0301\u00e9",
)


@pytest.fixture(params=PARAMETERS)
def url(request, tmp_path):
    """The URL of an empty store of each backend."""
    return url_of_an_empty_store(request, request.param, tmp_path / "contract")


@pytest.fixture
def store(url):
    opened = open_store(url, 10)
    opened.prepare()
    yield opened
    opened.close()


def test_a_state_comes_back_as_it_was_saved(store):
    full = a_state(
        parent=uid(3),
        is_done=True,
        current_map_element=uid(4),
        current_user=uid(5),
        expires_at=Instant.parse("2026-02-01T00:00:00.9999999-11:30"),
        content='{"a": "größe \U0001f469"}',
    )
    assert store.save(TENANT, [full, a_state(11)], None) == Effect(stored=2)
    assert store.find(TENANT, uid(10)) == full
    assert store.find(TENANT, uid(11)) == a_state(11)
    assert store.find(TENANT, uid(12)) is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_newest_wins_in_any_order_of_arrival(store, order):
    times = ["2026-01-01T00:00:00.0000001Z", "2026-01-01T00:00:00.0000002Z", "2026-01-01T01:00:00.000000201+01:00"]
    times.append("2026-01-01T00:00:00.000000202Z")
    for number in order:
        store.save(TENANT, [a_state(updated=times[number])], None)
    assert store.find(TENANT, uid(10)).content.text == times[3]


def test_a_tie_goes_to_the_later_arrival(store):
    for content in ("b", "a", "c"):
        assert store.save(TENANT, [a_state(content=content)], None).stored == 1
        assert store.find(TENANT, uid(10)).content.text == content


def rounded(text: str, by: int) -> Instant:
    """Return the instant of ``text`` as an adopted row has it: the Java service's database rounded it."""
    return dataclasses.replace(Instant.parse(text), rounded=by)


def test_a_time_that_the_java_services_database_rounded_gives_way_to_the_platforms_own(store):
    """It stored ….1234567 as ….123457; what is certainly older is ignored all the same, and the mark goes."""
    for number, second in ((10, "01"), (11, "00")):  # the second one borrows from the second before
        text = f"2026-01-01T00:00:{second}.{'123457' if number == 10 else '000000'}Z"
        adopted = a_state(number, updated_at=rounded(text, 500), content="adopted")
        assert store.save(TENANT, [adopted], None).stored == 1
        assert store.find(TENANT, uid(number)) == adopted
        before = "2026-01-01T00:00:01.1234564Z" if number == 10 else "2025-12-31T23:59:59.9999994Z"
        same = "2026-01-01T00:00:01.1234567Z" if number == 10 else "2025-12-31T23:59:59.9999996Z"
        assert store.save(TENANT, [a_state(number, before)], None).ignored == 1
        assert store.save(TENANT, [a_state(number, same)], None).stored == 1
        assert store.find(TENANT, uid(number)).updated_at == Instant.parse(same)
        assert store.save(TENANT, [adopted], None).ignored == 1  # a copy brings the adopted one once more
        assert store.save(TENANT, [a_state(number, before)], None).ignored == 1


def test_a_rounded_time_is_known_by_its_summary_and_its_content_can_be_replaced(store):
    adopted = a_state(updated_at=rounded("2026-01-01T00:00:01Z", NANOSECONDS // 2))
    store.save(TENANT, [adopted], None)
    assert [one.updated_at for one in store.summaries()] == [adopted.updated_at]
    resealed = dataclasses.replace(adopted, content=Content("other"))
    assert store.replace_content(TENANT, [(adopted, resealed)]) == 1
    assert list(store.scan()) == [resealed]


def test_an_older_state_is_ignored_and_counted(store):
    store.save(TENANT, [a_state(updated="2026-01-02T00:00:00Z")], None)
    assert store.save(TENANT, [a_state(), a_state(11)], None) == Effect(stored=1, ignored=1)


def test_a_replacement_keeps_parent_and_creation(store):
    first = a_state(parent=uid(3))
    newer = a_state(
        updated="2026-01-02T00:00:00Z",
        parent=uid(4),
        created_at=Instant.parse("2030-01-01T00:00:00Z"),
        flow=uid(200),
        flow_version=uid(201),
        is_done=True,
        current_map_element=uid(202),
        current_user=uid(203),
        expires_at=Instant.parse("2031-01-01T00:00:00Z"),
    )
    store.save(TENANT, [first], None)
    store.save(TENANT, [newer], None)
    expected = dataclasses.replace(newer, parent=first.parent, created_at=first.created_at)
    assert store.find(TENANT, uid(10)) == expected


def test_the_same_id_twice_in_a_batch_ends_with_the_newest(store):
    newest = a_state(updated="2026-01-03T00:00:00Z")
    batch = [a_state(), newest, a_state(updated="2026-01-02T00:00:00Z")]
    assert store.save(TENANT, batch, None) == Effect(stored=2, ignored=1)
    assert store.find(TENANT, uid(10)) == newest


def test_a_batch_that_fails_in_the_middle_leaves_nothing(store):
    class Broken(Exception):
        pass

    def states():
        yield a_state(10)
        raise Broken

    class Sequence(list):
        def __iter__(self):
            return states()

    with pytest.raises(Broken):
        store.save(TENANT, Sequence(), a_receipt())
    assert store.find(TENANT, uid(10)) is None
    assert store.save(TENANT, [], a_receipt()).jti_was == "new"


def test_tenants_do_not_see_touch_or_delete_each_others_ids(store):
    mine, theirs = a_state(content="mine"), a_state(tenant=OTHER, content="theirs")
    store.save(TENANT, [mine], None)
    assert store.find(OTHER, uid(10)) is None
    assert store.delete(OTHER, [uid(10)], None).stored == 0
    store.save(OTHER, [theirs], None)
    assert (store.find(TENANT, uid(10)), store.find(OTHER, uid(10))) == (mine, theirs)
    assert store.delete(TENANT, [uid(10)], None).stored == 1
    assert store.find(OTHER, uid(10)) == theirs


def test_deleting_is_counted_and_forgives_what_does_not_exist(store):
    store.save(TENANT, [a_state(number) for number in range(10, 15)], None)
    assert store.delete(TENANT, [uid(10), uid(10), uid(11), uid(99)], None) == Effect(stored=2)
    assert [state.id for state in store.scan()] == [uid(12), uid(13), uid(14)]
    assert store.delete(TENANT, [], None) == Effect()


@pytest.mark.slow
def test_300_000_ids_in_one_delete(store):
    store.save(TENANT, [a_state(10)], None)
    assert store.delete(TENANT, [uid(number) for number in range(300_000)], None) == Effect(stored=1)


def test_a_receipt_is_kept_with_the_change_and_stops_a_second_effect(store):
    assert store.save(TENANT, [a_state()], a_receipt()) == Effect(stored=1)
    store.delete(TENANT, [uid(10)], a_receipt("two", method="DELETE"))
    assert store.save(TENANT, [a_state()], a_receipt()) == Effect(jti_was="repeated")
    assert store.find(TENANT, uid(10)) is None


@pytest.mark.parametrize("change", [{"method": "DELETE"}, {"digest": b"e" * 32}])
def test_a_conflicting_receipt_is_refused_without_effect(store, change):
    store.save(TENANT, [a_state()], a_receipt())
    with pytest.raises(ReplayRefused):
        store.delete(TENANT, [uid(10)], a_receipt(**change))
    with pytest.raises(ReplayRefused):
        store.save(TENANT, [a_state(11)], a_receipt(**change))
    assert [state.id for state in store.scan()] == [uid(10)]


def test_a_conflict_that_is_only_observed_is_reported_and_done(store):
    store.save(TENANT, [a_state()], a_receipt(enforce=False))
    again = store.save(TENANT, [a_state()], a_receipt(enforce=False))
    assert again == Effect(stored=1, jti_was="new")
    conflict = store.delete(TENANT, [uid(10)], a_receipt(method="DELETE", enforce=False))
    assert conflict == Effect(stored=1, jti_was="conflicting")


def test_receipts_belong_to_their_tenant(store):
    store.save(TENANT, [], a_receipt())
    assert store.delete(OTHER, [], a_receipt(method="DELETE")).jti_was == "new"


def test_a_receipt_is_forgotten_only_after_its_time(store):
    store.save(TENANT, [], a_receipt(expires=NOW + 10))
    store.save(TENANT, [], a_receipt("two", now=NOW + 10))
    with pytest.raises(ReplayRefused):
        store.save(TENANT, [], a_receipt(method="DELETE", now=NOW + 10))
    assert store.save(TENANT, [], a_receipt(method="DELETE", now=NOW + 11)).jti_was == "new"


def test_only_states_that_have_expired_are_purged(store):
    moment = 1_800_000_000 * NANOSECONDS
    times = {
        10: "2027-01-15T07:59:58.9999999Z",
        11: "2027-01-15T08:59:59+01:00",
        12: "2027-01-15T08:00:00Z",
        13: "2027-01-15T08:00:00.0000001Z",
        14: "2027-01-14T21:00:00-11:00",
        15: "9999-12-31T23:59:59.9999999Z",
        16: None,
        17: "0002-01-01T00:00:00Z",
    }
    assert Instant.parse(times[12]).nanoseconds == moment
    for number, text in times.items():
        store.save(TENANT, [a_state(number, expires_at=Instant.parse(text) if text else None)], None)
    assert store.purge(moment) == 3
    assert [state.id for state in store.scan()] == [uid(number) for number in (12, 13, 14, 15, 16)]


@pytest.mark.case("I09")
def test_an_expiry_in_year_1_is_kept_as_it_is_and_means_never(store):
    """.NET's unset time, with any offset and fraction: also where the offset moves it before year 1."""
    times = dict(enumerate(UNSET, start=10))
    for number, text in times.items():
        store.save(TENANT, [a_state(number, expires_at=Instant.parse(text))], None)
    assert store.purge(NOW * NANOSECONDS) == 0
    assert {state.id: state.expires_at.text for state in store.scan()} == {uid(n): text for n, text in times.items()}
    (tally,) = tallies(store, NOW * NANOSECONDS)
    assert (tally.states, tally.expired) == (len(UNSET), 0)


@pytest.mark.slow
@pytest.mark.case("C12")
def test_purging_under_load_takes_no_state_that_has_not_expired(store):
    done, failures = threading.Event(), []
    past, future = (Instant.parse(text) for text in ("2020-01-01T00:00:00+14:00", "2040-01-01T00:00:00-11:00"))

    def purge():
        try:
            while not done.is_set():
                store.purge(NOW * NANOSECONDS)
        except Exception as failure:
            failures.append(failure)

    purging = threading.Thread(target=purge)
    purging.start()
    for number in range(10, 210):
        store.save(TENANT, [a_state(number, expires_at=past if number % 2 else future)], None)
    done.set()
    purging.join()
    store.purge(NOW * NANOSECONDS)
    assert not failures
    assert [state.id for state in store.scan()] == [uid(number) for number in range(10, 210, 2)]


@pytest.mark.parametrize("updated", EDGES)
def test_times_at_the_edge_of_the_calendar_are_kept(store, updated):
    edge = a_state(updated=updated, expires_at=Instant.parse(updated))
    store.save(TENANT, [edge], None)
    assert store.find(TENANT, uid(10)) == edge
    between = a_state(updated="1969-12-31T23:59:59.91Z")
    newest = max(edge, between, key=lambda state: state.updated_at.nanoseconds)
    store.save(TENANT, [between], None)
    assert store.find(TENANT, uid(10)).updated_at == newest.updated_at


@pytest.mark.case("D03", "D05")
@pytest.mark.parametrize("content", CONTENTS)
def test_content_is_kept_to_the_last_byte(store, content):
    store.save(TENANT, [a_state(content=content)], None)
    assert store.find(TENANT, uid(10)).content.text == content


@pytest.mark.parametrize("url", [one for one in PARAMETERS if one.values != ("filesystem",)], indirect=True)
def test_scanning_goes_by_tenant_and_id_and_sees_one_moment(store):
    for tenant in (OTHER, TENANT):
        store.save(tenant, [a_state(number, tenant=tenant) for number in (12, 10, 11)], None)
    seen = []
    for state in store.scan():
        seen.append((state.tenant, state.id))
        store.delete(OTHER, [uid(12)], None)
        store.save(TENANT, [a_state(9)], None)
    assert seen == [(tenant, uid(number)) for tenant in (TENANT, OTHER) for number in (10, 11, 12)]
    assert [state.id for state in store.scan(OTHER)] == [uid(10), uid(11)]


@pytest.mark.parametrize("url", ["filesystem"], indirect=True)
def test_scanning_files_goes_by_tenant_and_id_and_misses_none_that_stays(store):
    for tenant in (OTHER, TENANT):
        store.save(tenant, [a_state(number, tenant=tenant) for number in (12, 10, 11)], None)
    seen = []
    for state in store.scan():
        seen.append((state.tenant, state.id))
        store.delete(OTHER, [uid(12)], None)
        store.save(TENANT, [a_state(9), a_state(11, "2030-01-01T00:00:00Z")], None)
    assert seen == [*((TENANT, uid(number)) for number in (10, 11, 12)), (OTHER, uid(10)), (OTHER, uid(11))]
    assert [state.id for state in store.scan(TENANT)] == [uid(number) for number in (9, 10, 11, 12)]


def test_summaries_tell_everything_but_the_content(store):
    expires = Instant.parse("2030-01-01T00:00:00.1234567+05:30")
    for tenant in (OTHER, TENANT):
        states = [a_state(number, tenant=tenant, content="ü" * number, expires_at=expires) for number in (12, 10)]
        store.save(tenant, [*states, a_state(11, tenant=tenant)], None)
    assert list(store.summaries(OTHER)) == [one for one in store.summaries() if one.tenant == OTHER]
    assert [(one.tenant, one.id, one.size) for one in store.summaries()] == [
        (tenant, uid(number), size) for tenant in (TENANT, OTHER) for number, size in ((10, 20), (11, 20), (12, 24))
    ]
    first = next(store.summaries())
    assert (first.updated_at, first.expires_at) == (a_state().updated_at, expires)


def test_a_scan_reads_only_what_is_wanted_and_asks_in_order(store):
    for tenant in (OTHER, TENANT):
        store.save(tenant, [a_state(number, tenant=tenant) for number in range(1200 if tenant == TENANT else 3)], None)
    asked = []

    def wanted(one):
        asked.append((one.tenant, one.id))
        return one.id in (uid(0), uid(2), uid(700))

    found = [(state.tenant, state.id) for state in store.scan(None, wanted)]
    assert found == [(TENANT, uid(0)), (TENANT, uid(2)), (TENANT, uid(700)), (OTHER, uid(0)), (OTHER, uid(2))]
    assert asked == sorted(asked)
    assert len(asked) == 1203
    assert sum(1 for _ in store.summaries()) == 1203


def test_a_store_can_be_used_again_after_it_was_closed(store):
    store.save(TENANT, [a_state()], None)
    store.close()
    assert store.find(TENANT, uid(10)) == a_state()


def test_many_threads_leave_the_newest_of_each_state(store):
    versions = [(number % 5, f"2026-01-01T00:00:00.{number:07d}Z") for number in range(200)]
    random.Random(3).shuffle(versions)
    failures = []

    def save(mine):
        try:
            for number, updated in mine:
                store.save(TENANT, [a_state(number, updated)], None)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=save, args=(versions[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [state.content.text[-5:] for state in store.scan()] == [f"{195 + number:04d}Z" for number in range(5)]


@pytest.mark.slow
def test_batches_in_opposite_order_do_not_lock_each_other_out(store):
    batch = [a_state(number) for number in range(50)]
    failures = []

    def save(states):
        try:
            for _ in range(20):
                store.save(TENANT, states, None)
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=save, args=(batch[::step],)) for step in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(list(store.scan())) == 50


_STARTING = """
import sys
from receiver.stores import open_store
from tests.support.states import TENANT, a_receipt, a_state, uid
store = open_store(sys.argv[1], 20)
store.prepare()
number = int(sys.argv[2])
for again in range(20):
    assert store.save(TENANT, [a_state(number)], a_receipt(f"{number} {again}")).stored == 1
assert store.find(TENANT, uid(number)) == a_state(number)
"""


@pytest.mark.slow
def test_eight_processes_start_together_on_an_empty_store(url):
    started = [
        subprocess.Popen([sys.executable, "-c", _STARTING, url, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(8)
    ]
    outcomes = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert outcomes == [("", 0)] * 8
    with contextlib.closing(open_store(url, 5)) as store:
        assert [state.id for state in store.scan()] == [uid(number) for number in range(8)]
