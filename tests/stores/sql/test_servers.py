"""What is particular to database servers: commits, standbys, poolers, modes, and what a log may hold of them."""

import contextlib
import logging
import threading

import pytest

from receiver.problems import StoreFull, StoreUnavailable, TooLarge
from receiver.stores import open_store
from receiver.stores.sql import _RECEIPTS_KEPT
from receiver.stores.urls.store_url import parse
from tests.support import servers
from tests.support.sql import TIMEOUT, unavailable
from tests.support.states import TENANT, a_receipt, a_state, uid


def test_tables_that_vanish_are_an_outage_and_no_empty_store(store, server, database):
    store.save(TENANT, [a_state()], None)
    server.execute("drop table states", database)
    for call in (lambda: store.find(TENANT, uid(10)), lambda: store.save(TENANT, [a_state()], None), store.ping):
        with unavailable():
            call()
    with contextlib.closing(open_store(store.store_url, TIMEOUT)) as again:
        again.prepare()
        with unavailable():
            again.find(TENANT, uid(10))


def test_a_content_that_somebody_changed_is_damage(store, server, database):
    from receiver.problems import StoreDamaged

    store.save(TENANT, [a_state(10, content="one"), a_state(11)], None)
    server.execute(f"update states set content = 'two' where id = '{uid(10)}'", database)
    with pytest.raises(StoreDamaged):
        store.find(TENANT, uid(10))
    assert store.find(TENANT, uid(11)) == a_state(11)


def test_a_commit_is_durable_whatever_the_server_is_used_to(postgresql):
    name = postgresql.new_database()
    postgresql.execute(f"alter database {name} set synchronous_commit = off")
    with contextlib.closing(open_store(postgresql.url(name), TIMEOUT)) as store:
        store.prepare()
        seen = store._repeat(lambda connection: connection.exec_driver_sql("show synchronous_commit").scalar(), True)
        assert seen == "on"
    postgresql.execute(f"alter database {name} set synchronous_commit = remote_apply")
    with contextlib.closing(open_store(postgresql.url(name), TIMEOUT)) as store:
        seen = store._repeat(lambda connection: connection.exec_driver_sql("show synchronous_commit").scalar(), True)
        assert seen == "remote_apply"


def test_the_hosts_are_tried_in_their_order(server, database):
    store_url = parse(server.url(database))
    dead = servers.free_port()
    url = server.url(database).replace("@127.0.0.1", f"@127.0.0.1:{dead},127.0.0.1")
    assert parse(url).hosts == (("127.0.0.1", dead), *store_url.hosts)
    with contextlib.closing(open_store(url, TIMEOUT)) as store:
        store.prepare()
        assert store.find(TENANT, uid(10)) is None


@pytest.mark.case("G16")
def test_a_standby_is_passed_over_for_the_one_that_writes(postgresql):
    """One host, two databases of it, cannot tell; so two servers, of which the first only reads."""
    with servers.postgresql("default_transaction_read_only=on") as reading:
        name = postgresql.new_database()
        hosts = f"@127.0.0.1:{reading.port},127.0.0.1:{postgresql.port}/"
        url = postgresql.url(name).replace(f"@127.0.0.1:{postgresql.port}/", hosts)
        # The same password on both, as on a primary and its standby.
        with contextlib.suppress(Exception):
            reading.execute(
                f"set default_transaction_read_only = off; alter role receiver password '{postgresql.password}'"
            )
        with contextlib.closing(open_store(url, TIMEOUT)) as store:
            store.prepare()
            assert store.save(TENANT, [a_state()], None).stored == 1
        assert postgresql.execute("select count(*) from states", name) == [(1,)]


def test_a_state_that_the_server_does_not_take_in_one_piece_is_too_large(mariadb):
    with contextlib.closing(open_store(mariadb.url(mariadb.new_database()), TIMEOUT)) as store:
        store.prepare()
        mariadb.execute("set global max_allowed_packet = 1048576")
        try:
            store.close()
            for content in ("x" * 1_048_000, '"' * 530_000, "ä" * 530_000):
                with pytest.raises(TooLarge):
                    store.save(TENANT, [a_state(content=content)], a_receipt())
            assert store.find(TENANT, uid(10)) is None
            for content in ("x" * 1_030_000, '"' * 515_000, "\\" * 515_000, "\n" * 515_000, "\x1a" * 515_000):
                assert store.save(TENANT, [a_state(content=content)], None).stored == 1
                assert store.find(TENANT, uid(10)).content.text == content
        finally:
            mariadb.execute("set global max_allowed_packet = 67108864")


def test_no_content_reaches_a_cause_or_a_log(store, server, database, caplog):
    """The server itself quotes rows in its errors: a constraint that a content breaks shows what it would say."""
    caplog.set_level(logging.DEBUG)
    if isinstance(server, servers.Postgres):
        server.execute("alter table states add constraint short check (length(content) < 10)", database)
    else:
        server.execute("alter table states modify content varchar(10) not null", database)
    with pytest.raises((StoreUnavailable, StoreFull)) as told:
        store.save(TENANT, [a_state(content="very secret content")], None)
    assert "secret" not in told.value.cause
    assert "secret" not in caplog.text
    assert "secret" not in repr(told.value)


def test_old_receipts_are_forgotten_now_and_then(store, server, database):
    for number in range(50):
        store.save(TENANT, [], a_receipt(str(number), expires=a_receipt().now + 1))
    later = a_receipt().now + 100
    for number in range(_RECEIPTS_KEPT + 1):
        store.save(TENANT, [], a_receipt(f"later {number}", now=later, expires=later + 500))
    assert server.execute(f"select count(*) from receipts where expires < {later}", database)[0] == (0,)
    assert server.execute("select count(*) from receipts", database)[0] == (_RECEIPTS_KEPT + 1,)


@pytest.mark.case("F01")
def test_a_jti_used_by_many_at_once_has_one_effect(store):
    outcomes = []

    def save():
        outcomes.append(store.save(TENANT, [a_state()], a_receipt()).jti_was)

    threads = [threading.Thread(target=save) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["new"] + ["repeated"] * 7


@pytest.mark.parametrize(
    "mode", ["ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH"]
)
def test_the_mode_that_a_server_is_used_to_does_not_matter(mariadb, mode):
    before = mariadb.execute("select @@global.sql_mode")[0][0]
    mariadb.execute(f"set global sql_mode = '{mode}'")
    try:
        with contextlib.closing(open_store(mariadb.url(mariadb.new_database()), TIMEOUT)) as store:
            store.prepare()
            odd = a_state(content="\\ ' \" \n % \\'")
            assert store.save(TENANT, [odd], a_receipt()).stored == 1
            assert store.find(TENANT, uid(10)) == odd
    finally:
        mariadb.execute(f"set global sql_mode = '{before}'")


def test_behind_pgbouncer_no_setting_is_left_for_others(pgbouncer, postgresql):
    name = postgresql.new_database()
    with contextlib.closing(open_store(pgbouncer.url(name), TIMEOUT)) as store:
        store.prepare()
        store.ping()
        store.save(TENANT, [a_state()], a_receipt())
        assert pgbouncer.execute("show statement_timeout", name) == [("0",)]
    with contextlib.closing(open_store(postgresql.url(name), TIMEOUT)) as store:
        seen = store._read(lambda connection: connection.exec_driver_sql("show statement_timeout").scalar())
        assert seen == "900ms"
