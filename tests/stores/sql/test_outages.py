"""Outages of a database server: locks, freezes, kills, and the time that a call may take."""

import contextlib
import signal
import socket
import threading

import pytest

from receiver.idempotency import Effect
from receiver.stores import open_store
from receiver.stores.urls.store_url import parse
from tests.support import servers
from tests.support.servers import needed
from tests.support.sql import TIMEOUT, holding, unavailable
from tests.support.states import TENANT, a_receipt, a_state, uid
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow


def test_a_row_that_somebody_locked_is_an_outage_in_time_and_nothing_is_changed(store, server, database):
    store.save(TENANT, [a_state(10), a_state(11)], None)
    newer = [a_state(number, "2030-01-01T00:00:00Z") for number in (9, 10, 11)]
    with holding(server, database, f"select 1 from states where id = '{uid(10)}' for update"):
        with unavailable():
            store.save(TENANT, newer, a_receipt())
        assert store.find(TENANT, uid(10)) == a_state(10)
    assert store.find(TENANT, uid(9)) is None
    assert store.save(TENANT, newer, a_receipt()) == Effect(stored=3)


@pytest.mark.case("G13")
def test_a_frozen_server_is_an_outage_in_time_and_no_thread_is_held(url, server, request):
    store = open_store(url, 5.0)  # libpq does not give up connecting before 2 s
    request.addfinalizer(store.close)
    store.prepare()
    store.save(TENANT, [a_state()], None)
    server.signal_all(signal.SIGSTOP)
    try:
        for call in (
            lambda: store.find(TENANT, uid(10)),
            lambda: store.save(TENANT, [a_state()], a_receipt()),
            store.ping,
        ):
            with unavailable(within=5.7):
                call()
    finally:
        server.signal_all(signal.SIGCONT)
    assert store.find(TENANT, uid(10)) == a_state()
    assert store.save(TENANT, [a_state()], a_receipt()).stored == 1


@pytest.mark.case("G13")
@pytest.mark.parametrize("start", [servers.postgresql, servers.mariadb])
def test_a_server_that_was_killed_is_used_again_when_it_is_back(start):
    if start is servers.mariadb:
        needed("mariadbd", "mariadb-install-db")
    with start() as own, contextlib.closing(open_store(own.url(own.new_database()), TIMEOUT)) as store:
        store.prepare()
        store.save(TENANT, [a_state()], None)
        own.signal_all(signal.SIGKILL)
        own.process.wait()
        with unavailable(), contextlib.suppress(AssertionError):
            store.find(TENANT, uid(10))
        with unavailable():
            store.save(TENANT, [a_state(11)], a_receipt())
        own.start()
        assert store.find(TENANT, uid(10)) == a_state()
        assert store.save(TENANT, [a_state(11)], a_receipt()) == Effect(stored=1)


@pytest.mark.case("G16")
def test_a_server_that_is_down_at_the_start_is_an_outage_in_time(server):
    port = servers.free_port()
    store_url = f"{parse(server.url('x')).kind}://receiver:pw@127.0.0.1:{port}/x"
    with contextlib.closing(open_store(store_url, TIMEOUT)) as store:
        with unavailable():
            store.prepare()
        with unavailable():
            store.ping()


@pytest.mark.case("G16")
def test_a_read_only_server_is_an_outage_and_recovers(postgresql):
    name = postgresql.new_database()
    with contextlib.closing(open_store(postgresql.url(name), TIMEOUT)) as store:
        store.prepare()
        store.save(TENANT, [a_state()], None)
        postgresql.execute(f"alter database {name} set default_transaction_read_only = on")
        store.close()
        with unavailable():
            store.save(TENANT, [a_state(11)], None)
        assert store.find(TENANT, uid(10)) == a_state()
        postgresql.execute(f"alter database {name} set default_transaction_read_only = off")
        assert store.save(TENANT, [a_state(11)], None).stored == 1


@pytest.mark.case("G16")
def test_a_server_without_a_free_connection_is_an_outage_and_recovers(postgresql):
    name = postgresql.new_database()
    postgresql.execute("create role few login password 'few' connection limit 1")
    url = postgresql.url(name).replace(f"receiver:{postgresql.password}", "few:few")
    postgresql.execute(f"alter database {name} owner to few")
    try:
        with contextlib.closing(open_store(url, TIMEOUT)) as one, contextlib.closing(open_store(url, TIMEOUT)) as two:
            one.prepare()
            with unavailable():
                two.find(TENANT, uid(10))
            one.close()
            assert two.find(TENANT, uid(10)) is None
    finally:
        postgresql.execute(f"alter database {name} owner to receiver")
        postgresql.execute("drop owned by few", name)
        postgresql.execute("drop role few")


def test_more_threads_than_connections_wait_for_each_other_and_not_for_ever(server, url):
    with contextlib.closing(open_store(url, 5.0, connections=1)) as store:
        store.prepare()
        failures = []

        def work(number):
            try:
                for _ in range(10):
                    store.save(TENANT, [a_state(number)], None)
            except Exception as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_pgbouncer_bounds_a_wait_for_a_lock_too(pgbouncer, postgresql):
    name = postgresql.new_database()
    with contextlib.closing(open_store(pgbouncer.url(name), TIMEOUT)) as store:
        store.prepare()
        store.save(TENANT, [a_state()], None)
        with holding(postgresql, name, "lock table states in access exclusive mode"), unavailable():
            store.save(TENANT, [a_state(11)], None)
        assert store.save(TENANT, [a_state(11)], None).stored == 1


def test_the_time_of_a_call_is_bounded_and_not_that_of_each_answer_alone(postgresql):
    name = postgresql.new_database()
    with contextlib.closing(open_store(postgresql.url(name), TIMEOUT)) as store:
        store.prepare()
        postgresql.execute(
            """create function slowly() returns trigger language plpgsql as
                   $$ begin perform pg_sleep(0.3); return new; end $$;
               create trigger slow before insert on states for each row execute function slowly()""",
            name,
        )
        with unavailable():
            store.save(TENANT, [a_state(number) for number in range(20)], a_receipt())
        pass_time(0.5, "what the server still does of it is done")
        assert list(store.summaries()) == []
        assert store.save(TENANT, [a_state()], a_receipt()).stored == 1


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_hosts_that_swallow_everything_cost_no_more_than_the_time_of_a_call(kind):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        hosts = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in silent)
        store = stack.enter_context(contextlib.closing(open_store(f"{kind}://u:p@{hosts}/d", 5.0)))
        with unavailable(within=6.5):
            store.ping()
