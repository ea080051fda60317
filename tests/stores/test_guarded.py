"""A store that hangs: who notices it, who is refused, and that others feel nothing."""

import contextlib
import logging
import queue
import signal
import statistics
import threading
import time
import uuid

import pytest

from receiver import waits
from receiver.problems import ReplayRefused, StoreHangs, StoreUnavailable
from receiver.stores import open_store
from receiver.stores.breaker import FAILURES, PROBE_EVERY, Breaker
from receiver.stores.filesystem.durable import locked
from receiver.stores.guarded import Guarded, Slots, slots_for
from receiver.threadpool import Pool
from tests.bench.hung_store import silent_server
from tests.support.callers import Repeater, calling
from tests.support.platform_client import assert_problem, loaded
from tests.support.servers import needed
from tests.support.serving import serving
from tests.support.sql import holding
from tests.support.states import TENANT, a_state, uid
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

TIMEOUT = 10.0
HANGS = ": its calls get 503 at once"  # of the line in the log, with the cause of the last failure or without


class Hands:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def hands():
    return Hands()


@pytest.fixture
def breaker(hands):
    return Breaker(TIMEOUT, hands)


def fail(breaker, hands, seconds=TIMEOUT, count=FAILURES):
    """Let so many calls begin at once and time out after ``seconds``."""
    numbers = [breaker.begin() for _ in range(count)]
    hands.now += seconds
    for number in numbers:
        breaker.failed(number)


def test_calls_that_time_out_in_a_row_open_the_breaker(breaker, hands):
    fail(breaker, hands, count=FAILURES - 1)
    assert not breaker.is_open
    fail(breaker, hands, count=1)
    assert breaker.is_open
    assert breaker.begin() is None


def test_a_store_that_answers_some_calls_is_busy_and_does_not_hang(breaker, hands):
    for _ in range(20):
        slow = [breaker.begin() for _ in range(8)]
        hands.now += TIMEOUT
        breaker.answered(slow.pop())
        for number in slow:
            breaker.failed(number)
    assert not breaker.is_open


def test_failures_that_come_too_soon_open_nothing_yet(breaker, hands):
    fail(breaker, hands, seconds=TIMEOUT / 5, count=8)  # no connection of the pool was free, say
    assert not breaker.is_open
    hands.now += TIMEOUT / 2
    breaker.begin()
    assert breaker.is_open


def test_what_a_store_refuses_at_once_never_opens_the_breaker(breaker, hands):
    for _ in range(50):
        number = breaker.begin()
        hands.now += 1
        breaker.failed(number, timed_out=False)
    assert not breaker.is_open


def test_calls_that_never_come_back_count_as_failed(breaker, hands):
    held = [breaker.begin() for _ in range(FAILURES)]
    hands.now += TIMEOUT + 1.5
    assert breaker.begin() is None
    hands.now += PROBE_EVERY
    probe = breaker.begin()
    assert breaker.is_probe(probe)
    breaker.answered(probe)
    assert (breaker.is_open, breaker.held) == (False, 0)  # what is lost counts no more
    breaker.answered(held[0])
    assert breaker.begin() is not None


def test_one_call_that_is_given_up_opens_the_breaker_unless_another_was_answered_since(breaker, hands):
    number = breaker.begin()
    hands.now += 1
    breaker.answered(breaker.begin())
    hands.now += TIMEOUT + 1
    assert breaker.give_up(number)
    assert not breaker.is_open
    later = breaker.begin()
    hands.now += TIMEOUT + 2
    assert breaker.give_up(later)
    assert breaker.is_open
    breaker.answered(later)
    assert not breaker.is_open
    assert not breaker.give_up(later)  # it has returned
    assert not breaker.is_open


def test_one_probe_at_a_time_is_let_through_and_closes_it(breaker, hands):
    fail(breaker, hands)
    hands.now += PROBE_EVERY
    probe = breaker.begin()
    assert breaker.is_probe(probe)
    hands.now += 60
    assert breaker.begin() is None
    breaker.failed(probe)
    assert breaker.begin() is None
    hands.now += PROBE_EVERY
    breaker.answered(breaker.begin())
    assert not breaker.is_open
    assert not breaker.is_probe(breaker.begin())


def test_an_answer_to_a_call_that_was_held_closes_it_too(breaker, hands):
    held = breaker.begin()
    fail(breaker, hands)
    assert breaker.is_open
    breaker.answered(held)
    assert not breaker.is_open


class Answers:
    """A store that answers what its ``queue`` holds, in time or not: each call takes the next one."""

    def __init__(self):
        self.answers = queue.SimpleQueue()
        self.pings, self.entered = 0, 0

    def find(self, _tenant, _id):
        self.entered += 1
        found = self.answers.get()
        if isinstance(found, Exception):
            raise found
        return found

    def ping(self):
        self.pings += 1


class Opened(Breaker):
    """A breaker that is open, and at the next probe."""

    def __init__(self):
        super().__init__(TIMEOUT)
        self.opened_at = self._probe_at = 0.0


def test_a_probe_is_a_ping_and_the_call_that_made_it_is_answered(caplog):
    store = Answers()
    store.answers.put("state")
    with caplog.at_level(logging.INFO, "receiver"):
        assert Guarded(store, "the store", TIMEOUT, breaker=Opened()).find("t", "i") == "state"
    assert store.pings == 1
    assert [record.message for record in caplog.records] == ["the store answers again"]


def test_a_refusal_is_an_answer_and_a_probe_that_fails_is_a_refusal_at_once():
    breaker = Opened()
    store = Answers()
    store.answers.put(ReplayRefused())
    with pytest.raises(ReplayRefused):
        Guarded(store, "the store", TIMEOUT, breaker=breaker).find("t", "i")
    assert not breaker.is_open
    store.ping = lambda: (_ for _ in ()).throw(StoreUnavailable("no answer"))
    guarded = Guarded(store, "the store", TIMEOUT, breaker=Opened())
    with pytest.raises(StoreHangs, match="no answer"):
        guarded.find("t", "i")
    with pytest.raises(StoreHangs):
        guarded.find("t", "i")
    assert store.entered == 1


def attacked(platform_at, url, tenant, state, clients=24):
    """Let ``clients`` of ``tenant`` call meanwhile; yields them."""
    callers = [Repeater(platform_at(url), state) for _ in range(clients)]
    for caller in callers:
        caller.client.tenant = tenant
    return calling(callers)


def asking(guarded, count):
    """Ask ``guarded`` by so many threads of their own; returns them and what came of each."""
    outcomes = queue.SimpleQueue()

    def ask():
        try:
            outcomes.put(guarded.find("t", "i"))
        except StoreUnavailable as problem:
            outcomes.put(problem)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, outcomes


def test_calls_beyond_the_slots_wait_and_are_served_in_a_store_that_goes_on():
    store = Answers()
    guarded = Guarded(store, "the store", TIMEOUT, Slots(2, 1))
    threads, outcomes = asking(guarded, 12)
    for served in range(12):
        until(lambda served=served: store.entered >= min(served + 2, 12))
        assert store.entered <= served + 2
        store.answers.put("state")
    for thread in threads:
        thread.join(10)
    assert [outcomes.get() for _ in range(12)] == ["state"] * 12


def test_calls_beyond_the_slots_are_refused_when_none_comes_back():
    store = Answers()
    guarded = Guarded(store, "the store", 5.0, Slots(2, 1))
    threads, outcomes = asking(guarded, 6)
    refused = [outcomes.get(timeout=4) for _ in range(4)]
    assert {type(one) for one in refused} == {StoreHangs}
    assert store.entered == 2
    for _ in range(2):
        store.answers.put("state")
    for thread in threads:
        thread.join(10)
    assert [outcomes.get() for _ in range(2)] == ["state"] * 2


@pytest.mark.case("I03")
@pytest.mark.parametrize("blocks", [False, True])
def test_a_store_that_hangs_leaves_threads_to_others_of_the_same_pool(blocks):
    store, served = Answers(), queue.SimpleQueue()
    guarded = Guarded(store, "the store", 60.0, slots_for(2, 4), blocks)

    def serve(job):
        if job == "hung":
            with contextlib.suppress(StoreUnavailable):
                guarded.find("t", "i")
        else:
            served.put(job)

    pool = Pool(4, 1, serve)
    for _ in range(2 if blocks else 1):
        pool.submit("hung")
    if blocks:  # it keeps no turn; only the share keeps places
        for number in range(50):
            pool.submit(number)
        assert [served.get(timeout=5) for _ in range(50)] == list(range(50))
    for _ in range(6):
        store.answers.put("state")
    pool.shutdown()


def test_a_call_that_is_given_up_is_counted_until_it_returns(caplog):
    store = Answers()
    guarded = Guarded(store, "the store", TIMEOUT)
    served, waiting = queue.SimpleQueue(), []

    def serve():
        waiting.append(waits.start())
        with contextlib.suppress(StoreUnavailable):
            served.put(guarded.find("t", "i"))
        with contextlib.suppress(StoreUnavailable):
            served.put(guarded.find("t", "i"))  # of the same request, which is over: it is not begun

    with caplog.at_level(logging.WARNING, "receiver"):
        thread = threading.Thread(target=serve)
        thread.start()
        until(lambda: store.entered)
        assert waiting[0].give_up()
        assert [record.message for record in caplog.records] == [
            "the store: a call does not return; requests are answered 503 without it",
            "the store hangs: its calls get 503 at once, and a probe asks every second whether it is back",
        ]
        with pytest.raises(StoreHangs):
            guarded.find("t", "i")
        store.answers.put("state")
        thread.join(10)
        assert [record.message for record in caplog.records][2:] == [
            "the store answers again",
            "the store: every call that did not return in time has returned",
        ]
    assert store.entered == 1
    assert not waiting[0].claim()


@pytest.mark.parametrize("slots", [None, Slots(FAILURES, 1)])
def test_changes_that_hang_are_refused_and_loads_go_on(slots):
    store = Answers()
    entered = []
    store.delete = lambda *_: entered.append(1) or store.answers.get()
    store.find = lambda *_: "state"
    guarded = Guarded(store, "the store", 1.0, slots, on_disk=True)
    threads = [threading.Thread(target=lambda: guarded.delete("t", [], None), daemon=True) for _ in range(FAILURES)]
    for thread in threads:
        thread.start()
    until(lambda: len(entered) == FAILURES)
    pass_time(2.2, "none of them returns in its time")
    with pytest.raises(StoreHangs, match=r"finishes no change|no call has come back"):
        guarded.delete("t", [], None)
    assert guarded.find("t", "i") == "state"
    for _ in range(FAILURES):
        store.answers.put("done")
    for thread in threads:
        thread.join(10)
    store.answers.put("done")
    assert guarded.delete("t", [], None) == "done"


def test_one_store_alone_has_no_slots_and_many_share_the_threads():
    assert slots_for(1, 8) is None
    assert slots_for(2, 8) == Slots(8, 4)
    assert slots_for(30, 8) == Slots(8, 1)


# A whole receiver


def own(tenant, url):
    return {f"STORAGE_TENANT_{tenant.replace('-', '_')}": url}


def seconds_of(client, id, seconds):
    """Load ``id`` for so many seconds; return how long each took."""
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        answer = client.load(id)
        assert answer.status == 200, answer.body
        found.append(answer.seconds)
        pass_time(0.005, "a client that asks without haste")
    return sorted(found)


URLS = {"postgresql": "postgresql://me:x@127.0.0.1:{}/d", "mariadb": "mysql://me:x@127.0.0.1:{}/d"}


@pytest.mark.case("I03")
@pytest.mark.parametrize("kind", URLS)
@pytest.mark.parametrize("default_hangs", [False, True], ids=["tenants", "default"])
def test_the_store_of_one_that_hangs_is_not_felt_by_others(keys, platform_at, state, tmp_path, kind, default_hangs):
    tenant, other = str(uuid.uuid4()), str(uuid.uuid4())
    with silent_server() as port:
        hung, well = URLS[kind].format(port), f"sqlite:///{tmp_path}/well.db"
        stores = (
            {"DATABASE_URL": hung} | own(other, well) if default_hangs else {"DATABASE_URL": well} | own(tenant, hung)
        )
        with serving(keys, tmp_path, STORAGE_STORE_TIMEOUT="6", STORAGE_LOG_LEVEL="warning", **stores) as running:
            client = platform_at(running.url)
            client.tenant = other
            mine = state | {"tenant": other}
            assert client.save(mine).status == 204
            before = seconds_of(client, mine["id"], 2)
            with attacked(platform_at, running.url, tenant, state | {"tenant": tenant}) as callers:
                after = seconds_of(client, mine["id"], 14)
            answers = [answer for caller in callers for answer in caller.answers]
            assert {status for _, status, _ in answers} == {503}
            last = [seconds for began, _, seconds in answers if began > max(answers)[0] - 3]
            assert statistics.median(last) < 0.5  # refused at once by now
            with contextlib.closing(platform_at(running.url)) as one:
                one.tenant = tenant
                assert_problem(answer := one.load(state["id"]), 503)
                assert answer.headers["retry-after"] == "2"
    assert after[-1] < 2.0
    assert statistics.median(after) < 3 * statistics.median(before) + 0.01
    log = (tmp_path / "log").read_text()
    assert 1 <= log.count(HANGS) <= 2  # one line of each worker
    assert "Traceback" not in log


@pytest.mark.case("I03", "G13")
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_server_that_freezes_and_thaws_is_refused_at_once_and_serves_again_in_seconds(
    request, keys, platform_at, state, tmp_path, kind
):
    if kind == "mariadb":
        needed("mariadbd")
    server = request.getfixturevalue(kind)
    tenant, other = str(uuid.uuid4()), str(uuid.uuid4())
    stores = own(tenant, server.url(server.new_database()))
    with serving(keys, tmp_path, STORAGE_STORE_TIMEOUT="4", STORAGE_LOG_LEVEL="warning", **stores) as running:
        client, mine = platform_at(running.url), platform_at(running.url)
        client.tenant, mine.tenant = other, tenant
        assert client.save(state | {"tenant": other}).status == 204
        for _ in range(4):  # by every worker
            assert platform_at(running.url).health().status == 200
        assert mine.save(state | {"tenant": tenant}).status == 204
        with attacked(platform_at, running.url, tenant, state | {"tenant": tenant}, 12) as callers:
            until(lambda: all(caller.answers for caller in callers))
            server.signal_all(signal.SIGSTOP)
            try:
                assert seconds_of(client, state["id"], 8)[-1] < 2.0
                until(lambda: HANGS in (tmp_path / "log").read_text())
            finally:
                server.signal_all(signal.SIGCONT)
            back = time.monotonic()
            until(lambda: all(caller.answers[-1][1] in (200, 204) for caller in callers), 10)
            print(f"serves again {time.monotonic() - back:.1f} s after it was back")
        assert loaded(mine, state["id"]) == state["content"]
    log = (tmp_path / "log").read_text()
    assert log.count("answers again") == log.count(HANGS)


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_lock_that_is_held_for_long_costs_its_own_tenant_alone(keys, platform_at, state, tmp_path, kind):
    tenant, other = str(uuid.uuid4()), str(uuid.uuid4())
    url = f"file://{tmp_path}/own" if kind == "file" else f"sqlite:///{tmp_path}/own.db"
    with serving(keys, tmp_path, STORAGE_STORE_TIMEOUT="4", STORAGE_LOG_LEVEL="warning", **own(tenant, url)) as running:
        client, mine = platform_at(running.url), platform_at(running.url)
        client.tenant, mine.tenant = other, tenant
        assert client.save(state | {"tenant": other}).status == 204
        assert mine.save(state | {"tenant": tenant}).status == 204
        with contextlib.ExitStack() as stack:
            if kind == "file":
                (folder,) = (path for path in (tmp_path / "own").rglob("*") if path.is_dir() and path.name == tenant)
                stack.enter_context(locked(str(folder), time.monotonic() + 5))
            else:
                from sqlite_utils.utils import sqlite3

                connection = stack.enter_context(contextlib.closing(sqlite3.connect(tmp_path / "own.db")))
                connection.execute("begin immediate")
            stack.enter_context(attacked(platform_at, running.url, tenant, state | {"tenant": tenant}, 16))
            assert seconds_of(client, state["id"], 6)[-1] < 2.0
        until(lambda: mine.save(state | {"tenant": tenant}).status == 204, 10)


def test_a_store_of_which_some_rows_are_locked_is_busy_and_not_refused(postgresql):
    database = postgresql.new_database()
    with contextlib.closing(open_store(postgresql.url(database), 2.0)) as inner:
        inner.prepare()
        inner.save(TENANT, [a_state(10), a_state(11)], None)
        guarded = Guarded(inner, "the store", 2.0)
        with holding(postgresql, database, f"select 1 from states where id = '{uid(10)}' for update"):
            for _ in range(FAILURES + 1):
                with pytest.raises(StoreUnavailable):
                    guarded.save(TENANT, [a_state(10)], None)
                assert guarded.find(TENANT, uid(11)) == a_state(11)
        assert guarded.save(TENANT, [a_state(10)], None).stored == 1
