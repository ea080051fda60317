"""The doctor on stores: each kind, of the receiver or of a tenant, sound or not."""

import contextlib
import os
import sqlite3
import uuid

import pytest

from receiver.doctor.checks import stores
from receiver.doctor.subject import Subject
from receiver.keys import keyring
from receiver.mock_platform.keys import new_store
from receiver.settings import Settings, read
from receiver.stores import open_store
from receiver.stores.sqlite.schema import STEPS
from receiver.stores.urls import store_url
from tests.support.doctoring import reported, seal
from tests.support.key_files import put
from tests.support.states import TENANT, a_state


def stores_of(url, ring=None, **more):
    settings, mistakes = read({"DATABASE_URL": url, "STORAGE_STORE_TIMEOUT": "3", **more})
    assert not mistakes
    looked_at = Subject(settings, ring=ring or keyring.Keyring())
    return reported(stores.check(looked_at, stores.examine(settings, looked_at.ring)))


def prepared(url):
    store = open_store(url, 5)
    store.prepare()
    store.close()


@pytest.mark.parametrize("url", ["sqlite:///{}/states.db", "file://{}/states"])
def test_a_store_that_is_there_and_one_that_is_not_yet(tmp_path, url):
    url = url.format(tmp_path)
    stores_of(url).one("store", "warn", "there is none yet", "receiver serve")
    assert os.listdir(tmp_path) == []
    prepared(url)
    before = sorted(tmp_path.rglob("*"))
    report = stores_of(url)
    assert report.worse_than_ok() == []
    assert "answers in" in report.one("store", "ok").message
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_of_a_store_that_is_not_mounted(tmp_path):
    url = f"sqlite:///{tmp_path}/gone/further/states.db"
    stores_of(url).one("store", "fail", "is missing (is the volume mounted?)", f"mkdir -p {tmp_path}/gone/further")


def test_an_older_schema_is_told_and_left_as_it_is(tmp_path):
    path = tmp_path / "states.db"
    prepared(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("drop table store; delete from _sqlite_migrations where name like '0003%';")
    stores_of(f"sqlite:///{path}").one("store", "warn", "its schema lacks 0003_store", "start it again")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from _sqlite_migrations").fetchone() == (len(STEPS) - 1,)


def test_a_newer_schema_and_files_that_are_no_store(tmp_path):
    path = tmp_path / "states.db"
    prepared(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("insert into _sqlite_migrations (migration_set, name) values ('receiver', '0009_later')")
        connection.commit()
    stores_of(f"sqlite:///{path}").one("store", "fail", "newer than this program knows", "run the newer receiver")
    (tmp_path / "text").write_text("no database, but long enough to be taken for one" * 100)
    stores_of(f"sqlite:///{tmp_path}/text").one("store", "fail", "NOTADB", "a file of the receiver's own")
    (tmp_path / "folder").mkdir()
    stores_of(f"sqlite:///{tmp_path}/folder").one("store", "fail", "is not a file")
    stores_of(f"file://{tmp_path}").one("store", "fail", "is no store")


def test_a_sqlite_that_may_lose_a_commit_and_a_file_that_everybody_reads(tmp_path, monkeypatch):
    prepared(f"sqlite:///{tmp_path}/states.db")
    (tmp_path / "states.db").chmod(0o644)
    monkeypatch.setattr(stores, "_SAFE_VERSION", (99, 0, 0))
    report = stores_of(f"sqlite:///{tmp_path}/states.db")
    report.one("store", "warn", "can lose a commit", "pip install --upgrade pysqlite3")
    report.one("store", "warn", "everybody on this machine may use", f"chmod o= {tmp_path}/states.db")


def test_contents_that_need_another_sealing_key(tmp_path):
    folder = tmp_path / "keys"
    put(folder, new_store())
    seal(folder)
    url = f"sqlite:///{tmp_path}/states.db"
    prepared(url)
    inner = open_store(url, 5)
    inner.save(TENANT, [a_state()], None)
    inner.note_key_uses({("sealing", "clear"): 1})
    settings = Settings(keys=folder)
    stores_of(url, keyring.load(settings)[0]).one("store", "fail", "in the clear", "receiver store reseal")
    inner.forget_key("sealing", "clear")
    kid = str(uuid.uuid4())
    inner.note_key_uses({("sealing", kid): 1})
    inner.close()
    stores_of(url).one("store", "fail", kid, "bring the file of that sealing key")


def test_the_store_of_a_tenant_is_that_tenants_matter(tmp_path):
    prepared(f"sqlite:///{tmp_path}/states.db")
    tenant = str(uuid.uuid4())
    own = {f"STORAGE_TENANT_{tenant.replace('-', '_')}": "postgresql://me:x@127.0.0.1:1/d"}
    report = stores_of(f"sqlite:///{tmp_path}/states.db", **own)
    report.one("store", "fail", f"of tenant {tenant}", "pg_isready -h 127.0.0.1 -p 1")
    assert len(report.of("store", "fail")) == 1


def test_postgresql_says_what_a_commit_is_worth_and_who_may_connect(postgresql):
    url = postgresql.url(postgresql.new_database())
    stores_of(url).one("store", "warn", "tables of the store do not exist yet", "receiver serve")
    pinned = {"STORAGE_STORE_ID": str(uuid.uuid4())}
    stores_of(url, **pinned).one("store", "fail", "do not exist yet, but STORAGE_STORE_ID names", "put that store back")
    prepared(url)
    stores_of(url, **pinned).one("store", "fail", "holds the store", "put that store back")
    report = stores_of(url, STORAGE_WORKERS="50", STORAGE_POOL_SIZE="8")
    assert "server 1" in report.one("store", "ok", "answers in", "schema 0003").message
    report.one("store", "fail", "fsync is off", "ALTER SYSTEM SET fsync = on")  # as the tests' server is started
    report.one("store", "warn", "50 workers may hold 400 connections", "STORAGE_POOL_SIZE=3")
    wrong = url.replace(postgresql.password, "wrong")
    stores_of(wrong).one("store", "fail", "authentication failed", "DATABASE_USERNAME and DATABASE_PASSWORD")
    stores_of(f"{url}_none").one("store", "fail", "does not exist")
    postgresql.execute("update receiver_schema set version_num = '0001'", url.rpartition("/")[2])
    stores_of(url).one("store", "warn", "the schema is 0001", "start it again")


def test_the_states_of_the_java_service_are_told_from_an_empty_database(postgresql):
    name = postgresql.new_database()
    postgresql.execute("create table states (id uuid, tenant_id uuid, content jsonb, updated_at timestamptz)", name)
    stores_of(postgresql.url(name)).one("store", "warn", "Java service", "receiver store adopt --plan")


def test_the_clock_of_the_database_server_is_compared(postgresql):
    url = postgresql.url(postgresql.new_database())
    (one,) = stores.examine(read({"DATABASE_URL": url})[0], keyring.Keyring())
    assert abs(one.offset.seconds) < 5
    assert "127.0.0.1" in one.offset.whom


def test_mariadb_says_what_a_commit_is_worth(mariadb):
    url = mariadb.url(mariadb.new_database())
    prepared(url)
    assert stores_of(url).worse_than_ok() == []
    mariadb.execute("set global innodb_flush_log_at_trx_commit = 2")
    try:
        stores_of(url).one("store", "fail", "innodb_flush_log_at_trx_commit is not 1", "SET GLOBAL")
    finally:
        mariadb.execute("set global innodb_flush_log_at_trx_commit = 1")


@pytest.mark.parametrize(
    ("url", "proven"),
    [
        ("postgresql://h/d", False),
        ("postgresql://h/d?sslmode=require", False),
        ("postgresql://h/d?sslmode=verify-full", True),
        ("postgresql://h,127.0.0.1/d", False),
        ("postgresql://127.0.0.1/d", True),
        ("postgresql://me@/d?host=/run/postgresql", True),
        ("mysql://h/d", False),
        ("mysql://h/d?ssl-ca=/ca.pem", True),
        ("mysql://h/d?ssl-mode=verify-identity", True),
    ],
)
def test_a_database_over_the_network_has_to_prove_who_it_is(url, proven):
    from receiver.doctor.checks import servers
    from receiver.stores.sql.inspection import Said

    found = list(servers.judged(Said("0003", False, {}), store_url.parse(url), Settings(), ""))
    assert bool(found) == (not proven)
    assert proven or "to the URL" in found[0].fix
