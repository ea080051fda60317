"""Starting on a database server: logins, drivers, schemas, rights and tables."""

import contextlib
import dataclasses
import json
import threading
from unittest import mock

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from receiver.problems import StoreMisplaced
from receiver.stores import open_store
from receiver.stores.sql import upgrade
from receiver.stores.sql.schema import VERSION_TABLE, metadata
from receiver.stores.urls.store_url import parse
from tests.support import servers
from tests.support.commands import receiver
from tests.support.sql import TIMEOUT, unavailable
from tests.support.states import TENANT, a_receipt, a_state, uid

pytestmark = pytest.mark.slow


def test_the_migrations_make_the_tables_that_the_statements_expect(store, server):
    engine = store._engine()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": False})
        assert compare_metadata(context, metadata) == []
        script = ScriptDirectory(str(upgrade._MIGRATIONS))
        assert script.get_heads() == [upgrade.HEAD]
        assert upgrade.revision_of(connection, store.store_url) == upgrade.HEAD


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
    store_url = parse(server.url(database).replace(f"receiver:{server.password}@", "")).with_credentials("many", "")
    try:
        with contextlib.closing(open_store(dataclasses.replace(store_url, password=password), TIMEOUT)) as store:
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
