"""Deadlocks, conflicts and lost connections: done again, and once."""

import contextlib
import threading

import pytest

from receiver.idempotency import Effect
from receiver.stores import open_store
from tests.support import servers
from tests.support.sql import holding
from tests.support.states import TENANT, a_receipt, a_state, uid
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow


def test_transactions_that_deadlock_are_done_again(server, database, url):
    """Another program locks the same rows in the other order; ours is the one that is ended, or theirs."""
    with contextlib.closing(open_store(url, 8.0)) as store:
        store.prepare()
        store.save(TENANT, [a_state(10), a_state(11)], None)
        begun = threading.Event()

        def other():
            with holding(server, database, f"update states set revision = 7 where id = '{uid(11)}'"):
                begun.set()
                pass_time(1, "how long the row is held")

        thread = threading.Thread(target=other)
        thread.start()
        begun.wait()
        effect = store.save(TENANT, [a_state(number, "2030-01-01T00:00:00Z") for number in (10, 11)], a_receipt())
        thread.join()
        assert effect == Effect(stored=2)


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_what_a_conflict_broke_off_is_done_again_and_once(postgresql, code):
    """The server ends the first transaction at its very end: a trigger that fails once."""
    name = postgresql.new_database()
    with contextlib.closing(open_store(postgresql.url(name), 5.0)) as store:
        store.prepare()
        postgresql.execute(
            f"""create sequence tries;
                create function fail_once() returns trigger language plpgsql as $$ begin
                    if nextval('tries') = 1 then raise exception 'conflict' using errcode = '{code}'; end if;
                    return null; end $$;
                create constraint trigger conflict after insert on states deferrable initially deferred
                    for each row execute function fail_once()""",
            name,
        )
        assert store.save(TENANT, [a_state()], a_receipt()) == Effect(stored=1)
        assert postgresql.execute("select last_value from tries", name) == [(2,)]
        assert store.save(TENANT, [a_state()], a_receipt()).jti_was == "repeated"


def test_a_lost_connection_is_replaced_without_the_caller_noticing(store, server, database):
    store.save(TENANT, [a_state()], None)
    if isinstance(server, servers.Postgres):
        server.execute(
            f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}' and pid <> pg_backend_pid()"
        )
    else:
        for (pid,) in server.execute(f"select id from information_schema.processlist where db = '{database}'"):
            server.execute(f"kill {pid}")
    assert store.save(TENANT, [a_state(11)], a_receipt()) == Effect(stored=1)
    assert store.find(TENANT, uid(10)) == a_state()


def test_a_connection_lost_in_the_middle_is_tried_again_and_done_once(postgresql):
    """The server ends the session at the commit of the first try, so that its outcome is not known to us."""
    name = postgresql.new_database()
    with contextlib.closing(open_store(postgresql.url(name), 5.0)) as store:
        store.prepare()
        postgresql.execute(
            """create sequence tries;
               create function die_once() returns trigger language plpgsql as $$ begin
                   if nextval('tries') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if;
                   return null; end $$;
               create constraint trigger dying after insert on states deferrable initially deferred
                   for each row execute function die_once()""",
            name,
        )
        assert store.save(TENANT, [a_state()], a_receipt()) == Effect(stored=1)
        assert store.find(TENANT, uid(10)) == a_state()
