"""Switching over from the Java service: its table, filled by its statements, is adopted, used, and given back."""

import contextlib
import json
import threading
import time
import uuid

import psycopg
import pymysql
import pytest

from receiver.app import create_app
from receiver.keys.keyring import Keyring
from receiver.settings import Settings
from receiver.stores import open_store
from receiver.stores.resealing import reseal
from receiver.stores.sealed import Sealed
from tests.support.commands import receiver
from tests.support.java_service import COUNT, CREATE, OTHER, TENANT, UPSERT, Java, content_of, give_back
from tests.support.platform_client import InProcess, loaded
from tests.support.sealing import a_key
from tests.support.states import a_state, uid

pytestmark = pytest.mark.slow

DELETE = "delete from states where id = %s and tenant_id = %s"


@pytest.fixture(params=["postgresql", "mariadb"])
def java(request):
    server = request.getfixturevalue(request.param)
    made = Java(request.param, server, server.new_database())
    made.make()
    for number in range(COUNT):
        made.save(number, content_of(number))
    return made


@pytest.fixture
def url(java):
    return java.server.url(java.database)


@pytest.fixture
def calls(url, ring, clock, keys):
    """A function from a tenant to its client of a receiver on the adopted database."""
    opened = open_store(url, 10)
    application = create_app(Settings(), ring, opened, clock)
    yield lambda tenant: InProcess(application.test_client(), tenant, keys)
    opened.close()


def test_a_start_without_adopting_stops_with_the_hint_and_changes_nothing(java, url, tmp_path):
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    ran = receiver("serve", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, ran.stdout) == (78, "")
    assert "DATABASE_URL: the database holds the states of the Java service" in ran.stderr
    assert "receiver store adopt" in ran.stderr
    java.save(1, {"still": "works"}, minute=1)
    assert java.load(1) == [{"still": "works"}]


def test_the_plan_is_shown_and_nothing_is_done_without_a_yes(java, url, tmp_path):
    for words in (["--plan"], []):
        ran = receiver("store", "adopt", *words, cwd=tmp_path, DATABASE_URL=url)
        assert ran.returncode == (0 if words else 1)
        assert f"holds {COUNT} states" in ran.stdout
        assert "To go back" in ran.stdout
        assert java.server.password not in ran.stdout + ran.stderr
    java.save(1, {"still": "works"}, minute=1)
    assert java.load(1) == [{"still": "works"}]


def test_an_adopted_database_answers_saves_and_deletes_and_can_be_given_back(java, url, tmp_path, calls, flow):
    plan = json.loads(receiver("store", "adopt", "--plan", "--json", cwd=tmp_path, DATABASE_URL=url).stdout)
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert f"{COUNT} states adopted" in ran.stdout
    for number in range(COUNT):
        tenant = TENANT if number % 3 else OTHER
        assert json.loads(loaded(calls(tenant), uid(number))) == content_of(number)
        assert calls(OTHER if number % 3 else TENANT).load(uid(number)).status == 404
    client = calls(TENANT)
    known = flow.state() | {"id": uid(1), "tenant": TENANT}
    assert client.save(known | {"updatedAt": "2026-03-01T10:00:00.1234554Z"}).status == 204
    assert json.loads(loaded(client, uid(1))) == content_of(1)  # older than anything that rounds to what Java kept
    assert client.save(known | {"updatedAt": "2026-03-01T10:00:00.123456Z", "content": '{"n":1}'}).status == 204
    assert loaded(client, uid(1)) == '{"n":1}'
    stored = open_store(url, 5)
    assert (stored.find(TENANT, uid(1)).parent, stored.find(TENANT, uid(2)).is_done) == (uid(500), True)
    assert stored.find(TENANT, uid(5)).expires_at.text == "2026-03-01T10:00:00.123456Z"
    assert stored.find(TENANT, uid(1)).created_at.text == "2026-03-01T10:00:00.123456Z"
    stored.close()
    new = flow.state() | {"tenant": TENANT, "createdAt": "2026-03-02T01:00:00.1234567+02:00"}
    assert client.save(new).status == 204
    assert client.delete([uid(2)]).status == 204
    assert client.load(uid(2)).status == 404
    again = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert again.returncode == 1
    assert "nothing to adopt" in again.stderr

    ring = Keyring(sealing=[a_key(int(time.time()) - 1)])
    with contextlib.closing(open_store(url, 5)) as inner:
        assert reseal(Sealed(inner, lambda: ring.sealing, "read"), TENANT, lambda: None).resealed > 0
        with pytest.raises(Exception, match="states_in_the_clear"):  # its own error of each driver
            give_back(java, plan["back"])
        java.run("rollback")
        assert reseal(Sealed(inner, lambda: ring.sealing, "write"), None, lambda: None).key == "clear"
    give_back(java, plan["back"])
    assert java.load(1) == [{"n": 1}]
    assert java.load(2) == []
    assert java.load(4) == [content_of(4)]
    rows = java.run("select created_at, content from states where id = %s", (new["id"],))
    assert str(rows[0][0])[:26] == "2026-03-01 23:00:00.123457"  # rounded, on MariaDB too
    java.save(4, {"java": "saves again"}, minute=59)
    assert java.load(4) == [{"java": "saves again"}]
    assert java.run("select description from flyway_schema_history")[0][0] == "create states"


def test_what_the_java_service_can_still_do_afterwards(java, url, tmp_path):
    assert receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url).returncode == 0
    assert java.run("select 1")[0][0] == 1
    assert java.load(1) == [content_of(1)]
    assert java.run(DELETE, (uid(1), TENANT)) == 1
    assert java.load(1) == []
    before = java.load(4)
    with pytest.raises((psycopg.Error, pymysql.Error)):
        java.save(4, {"java": "cannot save"}, minute=59)
    assert java.load(4) == before


def test_an_adoption_that_cannot_be_done_says_why_and_changes_nothing(postgresql, tmp_path):
    java = Java("postgresql", postgresql, postgresql.new_database())
    java.make()
    java.run("alter table states alter flow_id drop not null")
    java.save(1, content_of(1))
    java.run("update states set flow_id = null")
    url = postgresql.url(java.database)
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, ran.stderr) == (
        1,
        "receiver: 1 obstacle prevents the adoption; nothing was changed\n"
        "  no flow_id: 1 state\n"
        f"    ids: {uid(1)}\n"
        "    all: select id, tenant_id from states where flow_id is null\n"
        f"    fix: update states set flow_id = '{uid(0)}' where flow_id is null\n",
    )
    java.run("update states set flow_id = id")
    java.run("create view report as select updated_at from states")
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, ran.stderr) == (
        1,
        "receiver: 1 obstacle prevents the adoption; nothing was changed\n"
        "  read the table states: 1 view\n"
        "    names: report\n"
        "    all: select pg_get_viewdef('report'::regclass)\n"
        "    fix: drop view report; note first how to make them again\n",
    )
    java.run("alter table states add extra int not null default 1")
    java.save(1, {"still": "works"}, minute=1)
    assert java.load(1) == [{"still": "works"}]


def test_a_java_service_that_was_left_running_loses_nothing(java, url, tmp_path):
    """It writes until its statements are refused; what it wrote before is there."""
    acknowledged, stop = {}, threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            try:
                if java.save(number % COUNT, {"late": number}, minute=1 + number % 58):
                    acknowledged.setdefault(number % COUNT, []).append(number)
            except (psycopg.Error, pymysql.Error):
                return

    with java.cursor() as cursor:
        cursor.executemany(UPSERT[java.engine], [java.row(number, "x" * 2000) for number in range(COUNT, 3000)])
    writer = threading.Thread(target=write)
    writer.start()
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    stop.set()
    writer.join()
    assert ran.returncode == 0, ran.stderr
    assert len(acknowledged) > 10
    with contextlib.closing(open_store(url, 10)) as store:
        kept = {state.id: state for state in store.scan()}
    for number in range(COUNT):
        theirs = java.load(number)
        assert json.loads(kept[uid(number)].content.text) == theirs[0]
        if number in acknowledged:
            assert theirs[0]["late"] in acknowledged[number]
    assert len(kept) == 3000


def test_a_schema_that_the_url_names_is_the_one_that_is_adopted(postgresql, tmp_path):
    name = postgresql.new_database()
    postgresql.execute('create schema "Order"; create table public.states (id int)', name)
    java = Java("postgresql", postgresql, name)
    java.run('set search_path to "Order"; ' + CREATE["postgresql"])
    java.run(UPSERT["postgresql"].replace("into states", 'into "Order".states'), java.row(1, {}))
    url = postgresql.url(name) + "?search_path=Order"
    plan = json.loads(receiver("store", "adopt", "--plan", "--json", cwd=tmp_path, DATABASE_URL=url).stdout)
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.stderr, ran.returncode) == ("", 0)
    with contextlib.closing(open_store(url, 5)) as store:
        assert [state.content.text for state in store.scan()] == ["{}"]
    give_back(java, plan["back"])
    assert java.run('select content from "Order".states') == [({},)]
    assert java.run("select count(*) from public.states") == [(0,)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("update states set expires_at = '12024-01-01'", "expires_at outside the years 1 to 9999"),
        ("update states set created_at = '0044-03-15 BC'", "created_at outside the years 1 to 9999"),
        ("alter table states drop constraint states_pk", "has no primary key"),
        ("alter table states add more int not null", "a column more that a new row would have to fill"),
    ],
)
def test_states_that_could_not_be_served_are_not_adopted(postgresql, tmp_path, change, told):
    java = Java("postgresql", postgresql, postgresql.new_database())
    java.make()
    if "add more" not in change:
        java.save(1, content_of(1))
    java.run(change)
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=postgresql.url(java.database))
    assert ran.returncode == 1
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_id_that_is_no_uuid_is_not_adopted(mariadb, tmp_path):
    java = Java("mariadb", mariadb, mariadb.new_database())
    java.make()
    java.save(1, content_of(1))
    java.run("update states set id = 'hello'")
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=mariadb.url(java.database))
    assert (ran.returncode, "id that is no UUID: 1 state\n" in ran.stderr) == (1, True)


def test_a_stranger_table_of_the_same_name_is_left_alone(postgresql, tmp_path):
    name = postgresql.new_database()
    postgresql.execute("create table receipts (number int primary key)", name)
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    ran = receiver("serve", cwd=tmp_path, DATABASE_URL=postgresql.url(name))
    assert ran.returncode == 78
    assert "a table receipts that is not the receiver's" in ran.stderr
    assert postgresql.execute("select count(*) from pg_tables where schemaname = 'public'", name) == [(1,)]


def test_a_store_that_never_was_the_java_services_is_not_adopted(postgresql, tmp_path):
    url = postgresql.url(postgresql.new_database())
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert (ran.returncode, "nothing to adopt" in ran.stderr) == (1, True)
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path)
    assert (ran.returncode, "stores its states in a database server" in ran.stderr) == (1, True)


def test_an_adopted_state_is_as_good_as_one_that_was_saved(postgresql, tmp_path):
    java = Java("postgresql", postgresql, postgresql.new_database())
    java.make()
    java.save(1, content_of(1))
    url = postgresql.url(java.database)
    assert receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url).returncode == 0
    store = open_store(url, 5)
    try:
        newer = a_state(1, "2026-03-01T10:00:00.1234561Z")
        assert store.save(OTHER, [a_state(1)], None).stored == 1  # the same id in another tenant
        assert store.save(TENANT, [newer], None).stored == 1
        assert store.find(TENANT, uid(1)).content.text == newer.content.text
        assert uuid.UUID(store.find(TENANT, uid(1)).parent).int == 500
    finally:
        store.close()
