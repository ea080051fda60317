"""What is particular to database servers: outages, locks, retries, refusals, and what a log may hold of them."""

import contextlib
import dataclasses
import json
import logging
import signal
import socket
import threading
import time
from unittest import mock

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from receiver.idempotency import Effect
from receiver.problems import StoreFull, StoreMisplaced, StoreUnavailable, TooLarge
from receiver.stores import open_store
from receiver.stores.sql import _RECEIPTS_KEPT, upgrade
from receiver.stores.sql.schema import VERSION_TABLE, metadata
from receiver.stores.urls.store_url import parse
from tests import servers
from tests.conftest import needed
from tests.test_commands import receiver
from tests.test_stores import TENANT, a_receipt, a_state, uid

TIMEOUT = 2.0
ENGINES = ["postgresql", "mariadb"]


@pytest.fixture(params=ENGINES)
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def database(server):
    return server.new_database()


@pytest.fixture
def url(server, database):
    return server.url(database)


@pytest.fixture
def store(url):
    with contextlib.closing(open_store(url, TIMEOUT)) as opened:
        opened.prepare()
        yield opened


@contextlib.contextmanager
def unavailable(within=TIMEOUT + 0.7, kind=StoreUnavailable):
    """Assert that what is done inside is an outage, told in time."""
    began = time.monotonic()
    with pytest.raises(kind) as told:
        yield told
    assert time.monotonic() - began < within


@contextlib.contextmanager
def holding(server, database, *statements):
    """Hold what ``statements`` lock in a transaction of somebody else."""
    if isinstance(server, servers.Postgres):
        import psycopg

        connection = psycopg.connect(server.url(database))
    else:
        import pymysql

        connection = pymysql.connect(
            host="127.0.0.1", port=server.port, user="receiver", password=server.password, database=database
        )
    with contextlib.closing(connection), connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        yield
        connection.rollback()


def test_the_migrations_make_the_tables_that_the_statements_expect(store, server):
    engine = store._engine()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": False})
        assert compare_metadata(context, metadata) == []
        script = ScriptDirectory(str(upgrade._MIGRATIONS))
        assert script.get_heads() == [upgrade.HEAD]
        assert upgrade.revision_of(connection, store.place) == upgrade.HEAD


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
    place = f"{parse(server.url('x')).kind}://receiver:pw@127.0.0.1:{port}/x"
    with contextlib.closing(open_store(place, TIMEOUT)) as store:
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


def test_transactions_that_deadlock_are_done_again(server, database, url):
    """Another program locks the same rows in the other order; ours is the one that is ended, or theirs."""
    with contextlib.closing(open_store(url, 8.0)) as store:
        store.prepare()
        store.save(TENANT, [a_state(10), a_state(11)], None)
        begun = threading.Event()

        def other():
            with holding(server, database, f"update states set revision = 7 where id = '{uid(11)}'"):
                begun.set()
                time.sleep(1)

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


def test_a_wrong_login_or_database_stops_the_start_with_one_line(server, tmp_path):
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    right = server.url(server.new_database())
    wrong = {
        right.replace(server.password, "hunter2"): "receiver",
        server.url("no_such_database"): "no_such_database",
        right.replace("receiver:", "nobody_here:"): "nobody_here",
    }
    for url, told in wrong.items():
        ran = receiver("serve", cwd=tmp_path, DATABASE_URL=url)
        assert (ran.returncode, ran.stdout) == (78, ""), ran.stderr
        lines = [line for line in ran.stderr.splitlines() if not line.startswith("{")]
        assert len(lines) == 2, lines
        logged = [json.loads(line)["message"] for line in ran.stderr.splitlines() if line.startswith("{")]
        assert all(line.startswith(("runs as root", "waiting for the store")) for line in logged), logged
        assert "(check user and password" in lines[1] or "(make the database" in lines[1]
        assert lines[1].startswith("  DATABASE_URL: ")
        assert told in lines[1]
        assert "hunter2" not in ran.stderr
        assert server.password not in ran.stderr


def test_credentials_of_their_own_variables_need_no_escaping(postgresql, tmp_path):
    postgresql.execute("create role odd login superuser password 'p@ss:w/rd%41#?'")
    name = postgresql.new_database()
    url = f"jdbc:postgresql://127.0.0.1:{postgresql.port}/{name}"
    ran = receiver(
        "store", "copy", "--to", f"sqlite:///{tmp_path}/copy.db", cwd=tmp_path,
        DATABASE_URL=url, DATABASE_USERNAME="odd", DATABASE_PASSWORD="p@ss:w/rd%41#?",
    )  # fmt: skip
    assert "the tables of the store are missing" in ran.stderr  # it was let in
    assert ran.returncode == 1
    postgresql.execute("drop role odd")


def test_a_user_and_a_password_of_any_characters_are_understood(server, database):
    password = "pässwörd€ +%&"
    role = (
        "create role %s login superuser password '%s'"
        if isinstance(server, servers.Postgres)
        else "create user %s identified by '%s'"
    )
    server.execute((role % ("many", password)).replace("%", "%"))
    grant = "select 1" if isinstance(server, servers.Postgres) else f"grant all on {database}.* to many"
    server.execute(grant)
    place = parse(server.url(database).replace(f"receiver:{server.password}@", "")).with_credentials("many", "")
    try:
        with contextlib.closing(open_store(dataclasses.replace(place, password=password), TIMEOUT)) as store:
            store.prepare()
            assert store.find(TENANT, uid(10)) is None
    finally:
        server.execute(f"drop database {database}")
        server.execute("drop role many" if isinstance(server, servers.Postgres) else "drop user many")


def test_a_missing_driver_is_told_with_what_installs_it(tmp_path, monkeypatch):
    for url, extra in (("postgresql://h/d", "postgresql"), ("mysql://h/d", "mysql"), ("sqlserver://h/d", "sqlserver")):
        names = {"psycopg": None, "pymysql": None, "mssql_python": None}
        with mock.patch.dict("sys.modules", names), pytest.raises(StoreMisplaced) as told:
            open_store(url, 1)
        assert f"pip install 'external-storage-receiver[{extra}]'" in told.value.cause


def test_a_schema_newer_than_the_program_stops_the_start_and_is_left_alone(server, store, database, url, tmp_path):
    store.save(TENANT, [a_state()], None)
    server.execute(f"update {VERSION_TABLE} set version_num = '0099'", database)
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    ran = receiver("serve", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "0099, newer than this program knows" in ran.stderr
    assert server.execute(f"select version_num from {VERSION_TABLE}", database)[0] == ("0099",)


def test_a_worker_does_not_make_tables_where_the_master_found_some(url):
    with contextlib.closing(open_store(url, TIMEOUT, create=False)) as store, unavailable():
        store.find(TENANT, uid(10))


def test_tables_that_vanish_are_an_outage_and_no_empty_store(store, server, database):
    store.save(TENANT, [a_state()], None)
    server.execute("drop table states", database)
    for call in (lambda: store.find(TENANT, uid(10)), lambda: store.save(TENANT, [a_state()], None), store.ping):
        with unavailable():
            call()
    with contextlib.closing(open_store(store.place, TIMEOUT)) as again:
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


def test_a_schema_of_its_own_can_be_named(postgresql):
    name = postgresql.new_database()
    postgresql.execute("create schema flow", name)
    postgresql.execute("create table states (unrelated int)", name)
    with contextlib.closing(open_store(postgresql.url(name) + "?search_path=flow", TIMEOUT)) as store:
        store.prepare()
        assert store.save(TENANT, [a_state()], a_receipt()).stored == 1
        assert store.find(TENANT, uid(10)) == a_state()
        assert store.delete(TENANT, [uid(10)], None).stored == 1
    assert postgresql.execute("select count(*) from flow.receipts", name) == [(1,)]
    assert postgresql.execute("select count(*) from pg_tables where schemaname = 'public'", name) == [(1,)]


def test_the_hosts_are_tried_in_their_order(server, database):
    place = parse(server.url(database))
    dead = servers.free_port()
    url = server.url(database).replace("@127.0.0.1", f"@127.0.0.1:{dead},127.0.0.1")
    assert parse(url).hosts == (("127.0.0.1", dead), *place.hosts)
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


def test_pgbouncer_bounds_a_wait_for_a_lock_too(pgbouncer, postgresql):
    name = postgresql.new_database()
    with contextlib.closing(open_store(pgbouncer.url(name), TIMEOUT)) as store:
        store.prepare()
        store.save(TENANT, [a_state()], None)
        with holding(postgresql, name, "lock table states in access exclusive mode"), unavailable():
            store.save(TENANT, [a_state(11)], None)
        assert store.save(TENANT, [a_state(11)], None).stored == 1


def test_many_threads_that_meet_an_empty_database_at_once_prepare_it_together(server):
    """As when a server comes back that was down at the start: several tenants' stores, all threads of a process."""
    stores = [open_store(server.url(server.new_database()), 10.0) for _ in range(3)]
    failures = []

    def ask(store):
        try:
            store.ping()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=ask, args=(stores[number % 3],)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        assert store.save(TENANT, [a_state()], a_receipt()).stored == 1
        store.close()
    assert failures == []


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
        time.sleep(0.5)
        assert list(store.summaries()) == []
        assert store.save(TENANT, [a_state()], a_receipt()).stored == 1


def test_a_database_that_lacks_characters_is_refused_and_one_that_has_none_keeps_all(postgresql):
    postgresql.execute("create database latin encoding 'LATIN1' template template0")
    store = open_store(postgresql.url("latin"), TIMEOUT)
    with contextlib.closing(store), pytest.raises(StoreMisplaced, match="LATIN1"):
        store.prepare()
    postgresql.execute("create database plain encoding 'SQL_ASCII' template template0")
    with contextlib.closing(open_store(postgresql.url("plain"), TIMEOUT)) as store:
        store.prepare()
        odd = a_state(content="größe \U0001f469 \u2028")
        store.save(TENANT, [odd], a_receipt())
        assert store.find(TENANT, uid(10)) == odd


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


@pytest.mark.parametrize("schema", ["MySchema", "user", "order"])
def test_the_name_of_a_schema_may_be_any(postgresql, schema):
    name = postgresql.new_database()
    postgresql.execute(f'create schema "{schema}"', name)
    for _ in range(2):
        with contextlib.closing(open_store(f"{postgresql.url(name)}?search_path={schema}", TIMEOUT)) as store:
            store.prepare()
            assert store.save(TENANT, [a_state()], None).stored == 1


def test_a_role_that_may_make_no_tables_is_told_at_once(postgresql):
    name = postgresql.new_database()
    postgresql.execute("create role poor login password 'poor'")
    postgresql.execute("revoke create on schema public from public", name)
    url = postgresql.url(name).replace(f"receiver:{postgresql.password}", "poor:poor")
    try:
        with contextlib.closing(open_store(url, 8.0)) as store, unavailable(within=2, kind=StoreMisplaced) as told:
            store.prepare()
        assert "permission denied" in told.value.cause
    finally:
        postgresql.execute("drop role poor")


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_hosts_that_swallow_everything_cost_no_more_than_the_time_of_a_call(kind):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(6)]
        hosts = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in silent)
        store = stack.enter_context(contextlib.closing(open_store(f"{kind}://u:p@{hosts}/d", 5.0)))
        with unavailable(within=6.5):
            store.ping()
