"""Adoption at the edges of what the Java service's databases keep, and what stands in the way back."""

import contextlib
import json
import re

import psycopg
import pymysql
import pytest

from receiver.states import NANOSECONDS
from receiver.stores import copying, open_store
from tests.support.commands import receiver
from tests.support.java_service import CREATE, OTHER, TENANT, Java, content_of, give_back
from tests.support.states import NOW, a_state, uid

pytestmark = pytest.mark.slow

# The Java service's own types: on MySQL and MariaDB whole seconds, and the character set that the server is used to.
WHOLE_SECONDS = CREATE["mariadb"].replace("datetime(6)", "datetime").replace("bit", "boolean")
LATIN1 = WHOLE_SECONDS.replace("current_map_element_id char(36),", "current_map_element_id char(36) not null,") + (
    " character set latin1"
)


def adopted(java, tmp_path):
    """Adopt the database of ``java``; return the plan."""
    url = java.server.url(java.database)
    plan = receiver("store", "adopt", "--yes", "--json", cwd=tmp_path, DATABASE_URL=url)
    assert plan.returncode == 0, plan.stderr
    return json.loads(plan.stdout)


def made(server, create=None):
    """Return the Java service with an empty table in a database of ``server``."""
    engine = "postgresql" if hasattr(server, "url") and server.url("x").startswith("postgresql") else "mariadb"
    java = Java(engine, server, server.new_database())
    if create:
        java.run(create)
    else:
        java.make()
    return java


@pytest.fixture(params=["postgresql", "mariadb"])
def java(request):
    return made(request.getfixturevalue(request.param))


def opened(java):
    return contextlib.closing(open_store(java.server.url(java.database), 10))


EDGES = {
    "postgresql": {
        "9999-12-31 23:59:59.999999+00": "9999-12-31T23:59:59.999999Z",
        "10000-01-01 00:00:00+00": "9999-12-31T23:59:59.9999999Z",  # what it makes of .NET's maximum
        "10000-01-01 05:00:00+00": "9999-12-31T23:59:59.9999999Z",  # the same at -05:00
        "0001-01-01 00:00:00+00": "0001-01-01T00:00:00.000000Z",
        "0001-12-31 23:00:00+00 BC": "0001-01-01T00:00:00.0000000Z",  # 0001-01-01 at +01:00
    },
    "mariadb": {
        "9999-12-31 23:59:59.999999": "9999-12-31T23:59:59.999999Z",
        "0001-01-01 00:00:00": "0001-01-01T00:00:00.000000Z",
    },
}


def test_the_least_and_the_greatest_time_of_dotnet_are_adopted_and_never_purged(java, tmp_path):
    edges = EDGES[java.engine]
    for number, time in enumerate(edges):
        java.save(number, content_of(number))
        java.run(f"update states set expires_at = '{time}' where id = '{uid(number)}'")
    adopted(java, tmp_path)
    with opened(java) as store:
        assert store.purge(NOW * NANOSECONDS) == 0
        found = {state.id: state.expires_at.text for state in store.scan()}
    assert found == {uid(number): text for number, text in enumerate(edges.values())}


BLOCKS = {
    "postgresql": (
        "update states set expires_at = '12024-01-01' where tenant_id = '{tenant}'",
        f"update states set created_at = '0044-03-15 BC', updated_at = 'infinity' where id = '{uid(3)}'",
        "alter table states alter flow_id drop not null",
        f"update states set flow_id = null where id = '{uid(6)}'",
    ),
    "mariadb": (
        "set sql_mode = ''; update states set expires_at = '0000-00-00' where tenant_id = '{tenant}'",
        f"update states set current_user_id = 'hello' where id = '{uid(3)}'",
        f"update states set flow_id = 'wor\x1bld' where id = '{uid(6)}'",
    ),
}
CAUSES = {
    "postgresql": [
        ("no flow_id", 1),
        ("created_at outside the years 1 to 9999 (too early)", 1),
        ("updated_at outside the years 1 to 9999 (too late)", 1),
        ("expires_at outside the years 1 to 9999 (too late)", 24),
    ],
    "mariadb": [
        ("expires_at that is no date", 24),
        ("flow_id that is no UUID", 1),
        ("current_user_id that is no UUID", 1),
    ],
}


def test_all_that_stops_an_adoption_is_named_at_once_with_what_fixes_it(java, tmp_path):
    for number in range(36):
        java.save(number, content_of(number))
    for change in BLOCKS[java.engine]:
        with java.cursor() as cursor:
            for statement in change.format(tenant=TENANT).split("; "):
                cursor.execute(statement)
    url = java.server.url(java.database)
    plan = json.loads(receiver("store", "adopt", "--plan", "--json", cwd=tmp_path, DATABASE_URL=url).stdout)
    assert [(one["what"], one["count"]) for one in plan["obstacles"]] == CAUSES[java.engine]
    ran = receiver("store", "adopt", "--yes", cwd=tmp_path, DATABASE_URL=url)
    assert ran.returncode == 1
    assert f"receiver: {len(CAUSES[java.engine])} obstacles prevent the adoption" in ran.stderr
    assert "\x1b" not in ran.stderr
    shown = dict(re.findall(r"^  (\S.*): \d+ states?\n    ids: (.*)$", ran.stderr, re.MULTILINE))
    mine = sorted(uid(number) for number in range(36) if number % 3)
    assert next(ids for what, ids in shown.items() if "expires_at" in what) == ", ".join([*mine[:20], "and 4 more"])
    for one in plan["obstacles"]:
        assert len(java.run(one["query"])) == one["count"]
        java.run(one["fix"])
    adopted(java, tmp_path)
    with opened(java) as store:
        assert len(list(store.scan())) == 36


def test_a_tie_that_the_databases_rounding_would_lose_is_saved(java, tmp_path):
    java.save(1, content_of(1))
    java.save(2, content_of(2))
    stored = "2026-03-01 10:00:00.123457" + ("+00" if java.engine == "postgresql" else "")
    java.run(f"update states set updated_at = '{stored}'")  # of ….1234567
    adopted(java, tmp_path)
    with opened(java) as store:
        older, same = (a_state(1, f"2026-03-01T10:00:00.{digits}Z") for digits in ("1234564", "1234567"))
        assert store.save(TENANT, [older], None).ignored == 1
        assert store.save(TENANT, [same], None).stored == 1
        assert store.save(TENANT, [older], None).ignored == 1  # the mark is gone with the row's first content
        assert store.find(TENANT, uid(2)).updated_at.rounded == 500


@pytest.mark.parametrize("target", ["sqlite:///{}/copy.db", "file://{}/copy"])
def test_a_copy_of_an_adopted_store_keeps_what_was_rounded(java, tmp_path, target):
    java.save(1, content_of(1))
    java.save(2, content_of(2))
    adopted(java, tmp_path)
    same = a_state(1, "2026-03-01T10:00:00.1234557Z")  # stored as ….123456
    with opened(java) as source, contextlib.closing(open_store(target.format(tmp_path), 10)) as copy:
        copy.prepare()
        for _ in range(2):
            copying.copy(source, copy, None, lambda: None)
        assert list(copy.scan()) == list(source.scan())
        assert copy.save(TENANT, [same], None).stored == 1
        copying.copy(source, copy, None, lambda: None)
        assert copy.find(TENANT, uid(1)).content == same.content
        (verdict,) = copying.compare(source, copy, TENANT, lambda: None)
        assert (verdict.newer, verdict.equal, verdict.is_complete) == (1, 1, True)


REFUSED = {
    "postgresql": [
        r'{"a":"\u0000"}', r'["\ud800"]', r'["\udc00"]', "not JSON", "", "[1e131072]", "[1e-16384]", "[NaN]", "[01]", "[1] x",
        '["\x01"]', "[" * 100_000 + "]" * 100_000,
    ],
    "mariadb": [
        r'["\ud800"]', r'["\udc00"]', "not JSON", "", "[NaN]", "[01]", "[1] x", '["\x01"]', "[" * 32 + "]" * 32,
    ],
}  # fmt: skip


def test_what_stops_the_way_back_is_found_beforehand(java, tmp_path):
    java.save(1, content_of(1))
    plan = adopted(java, tmp_path)
    url = java.server.url(java.database)

    def check(*words):
        return receiver("store", "adopt", "--check-back", *words, cwd=tmp_path, DATABASE_URL=url)

    ran = check()
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "nothing prevents going back\n", "")
    assert json.loads(check("--json").stdout)["stoppers"] == []
    refused = [a_state(100 + number, content=content) for number, content in enumerate(REFUSED[java.engine])]
    with opened(java) as store:
        for state in refused:
            store.save(TENANT, [state, a_state(50, content="{}")], None)
            with pytest.raises((psycopg.Error, pymysql.Error)):
                give_back(java, plan["back"])
            again(java)
            ran = check()
            assert (ran.returncode, f"    {TENANT} {state.id}\n" in ran.stdout) == (1, True), state.content.text[:40]
            store.delete(TENANT, [state.id], None)
        store.save(TENANT, refused, None)
        store.save(OTHER, [a_state(1, content="[]")], None)
        told = json.loads(check("--json").stdout)
        assert sum(one["count"] for one in told["stoppers"]) == len(refused) + 2
        shared = next(one for one in told["stoppers"] if "another tenant" in one["reason"])
        assert shared["states"] == [f"{TENANT} {uid(1)}", f"{OTHER} {uid(1)}"]
        asked = ask(java, plan["check_back"])
        assert {str(row[1]) for row in asked} == {uid(1), *(state.id for state in refused)}
        store.delete(TENANT, [state.id for state in refused], None)
        store.delete(OTHER, [uid(1)], None)
    assert check().returncode == 0
    give_back(java, plan["back"])
    assert java.load(1) == [content_of(1)]


def again(java):
    """Undo what a way back that stopped has left: on MariaDB its first statement cannot be run twice."""
    if java.engine == "mariadb":
        java.run("alter table states drop constraint states_in_the_clear")


def ask(java, statements):
    """Return the rows that the ``statements`` answer, in one session."""
    rows = []
    with java.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            if cursor.description:
                rows += cursor.fetchall()
    return rows


def test_sealed_states_stop_the_way_back_with_the_command_that_opens_them(java, tmp_path):
    java.save(1, content_of(1))
    adopted(java, tmp_path)
    url = java.server.url(java.database)
    java.run("update states set sealing_key = 'k'")
    ran = receiver("store", "adopt", "--check-back", cwd=tmp_path, DATABASE_URL=url)
    assert ran.returncode == 1
    assert "sealed: 1 state\n" in ran.stdout
    assert "receiver store reseal --open --stopped" in ran.stdout


def test_a_database_that_was_not_adopted_has_no_way_back(java, tmp_path):
    ran = receiver("store", "adopt", "--check-back", cwd=tmp_path, DATABASE_URL=java.server.url(java.database))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("receiver: ")
    ran = receiver("store", "adopt", "--check-back", "--yes", cwd=tmp_path)
    assert ran.returncode == 2


MOMENTS = {  # createdAt, updatedAt and expiresAt: with six digits, and in whole seconds
    "2026-03-02T01:00:00.1234567+02:00": ("2026-03-01 23:00:00.123457", "2026-03-01 23:00:00"),
    "2026-03-02T01:00:00.123456499-03:30": ("2026-03-02 04:30:00.123456", "2026-03-02 04:30:00"),
    "2026-12-31T23:59:59.9999996Z": ("2027-01-01 00:00:00.000000", "2027-01-01 00:00:00"),
    "2026-03-02T01:00:00.5Z": ("2026-03-02 01:00:00.500000", "2026-03-02 01:00:01"),
    "2026-03-02T01:00+00:30": ("2026-03-02 00:30:00.000000", "2026-03-02 00:30:00"),
    "1969-12-31T23:59:59.25Z": ("1969-12-31 23:59:59.250000", "1969-12-31 23:59:59"),
    "9999-12-31T23:59:59.9999999Z": ("9999-12-31 23:59:59.999999", "9999-12-31 23:59:59"),
    "9999-12-31T23:59:59.9999999-05:00": ("9999-12-31 23:59:59.999999", "9999-12-31 23:59:59"),
    "0001-01-01T00:00:00+01:00": ("0001-01-01 00:00:00.000000", "0001-01-01 00:00:00"),
    "0001-01-01T00:00:00-08:00": ("0001-01-01 08:00:00.000000", "0001-01-01 08:00:00"),
}


@pytest.mark.parametrize(("create", "place"), [(CREATE["mariadb"], 0), (WHOLE_SECONDS, 1)])
def test_the_way_back_on_mariadb_rounds_every_time_to_what_its_columns_keep(mariadb, tmp_path, create, place):
    java = made(mariadb, create)
    java.save(1, content_of(1))
    plan = adopted(java, tmp_path)
    with opened(java) as store:
        for number, text in enumerate(MOMENTS, start=10):
            instant = store_time(text)
            state = a_state(number, text, created_at=instant, expires_at=instant, content="{}")
            assert store.save(TENANT, [state], None).stored == 1
    give_back(java, plan["back"])
    for number, expected in enumerate(MOMENTS.values(), start=10):
        query = "select cast(created_at as char), cast(updated_at as char), cast(expires_at as char) from states"
        assert java.run(f"{query} where id = '{uid(number)}'") == ((expected[place],) * 3,)


def store_time(text):
    return a_state(updated=text).updated_at


def test_a_latin1_table_of_whole_seconds_is_adopted_used_and_given_back(mariadb, tmp_path):
    """As the Java service makes it on a server whose character set is latin1, in the first of its versions."""
    java = made(mariadb, LATIN1)
    for number in range(4):
        values = list(java.row(number, content_of(number)))
        values[6] = uid(9)
        java.run(
            "insert into states (id, tenant_id, parent_id, flow_id, flow_version_id, is_done, current_map_element_id,"
            " current_user_id, created_at, updated_at, expires_at, content) values (" + ", ".join(["%s"] * 12) + ")",
            values,
        )
    java.run("update states set updated_at = '2026-03-01 10:00:01'")  # of 10:00:00.6234567, rounded
    plan = adopted(java, tmp_path)
    with opened(java) as store:
        for number in range(4):
            tenant = TENANT if number % 3 else OTHER
            assert json.loads(store.find(tenant, uid(number)).content.text) == content_of(number)
        assert store.save(TENANT, [a_state(1, "2026-03-01T10:00:00.4999999Z")], None).ignored == 1
        assert (
            store.save(TENANT, [a_state(1, "2026-03-01T10:00:00.6234567Z", content='["\U0001f469"]')], None).stored == 1
        )
    give_back(java, plan["back"])
    assert java.load(1) == [["\U0001f469"]]
    assert java.load(2) == [content_of(2)]
    assert java.run(f"select cast(updated_at as char) from states where id = '{uid(1)}'") == (("2026-03-01 10:00:01",),)


def test_characters_that_a_latin1_column_lacks_stop_the_way_back(mariadb, tmp_path):
    java = made(
        mariadb, LATIN1.replace("content json", "content longtext").replace("id char(36) not null,", "id char(36),")
    )
    java.run(LATIN1_ROW)
    plan = adopted(java, tmp_path)
    url = java.server.url(java.database)
    with opened(java) as store:
        assert store.find(TENANT, uid(1)).content.text == '["größe"]'
        store.save(TENANT, [a_state(2, content="größe"), a_state(3, content="\U0001f469")], None)
        ran = receiver("store", "adopt", "--check-back", cwd=tmp_path, DATABASE_URL=url)
        assert (ran.returncode, f"{TENANT} {uid(3)}" in ran.stdout, uid(2) in ran.stdout) == (1, True, False)
        with pytest.raises(pymysql.Error, match="Incorrect string value"):
            give_back(java, plan["back"])
        store.delete(TENANT, [uid(3)], None)
    give_back(java, ["set time_zone = '+00:00'", *plan["back"][plan["back"].index("delete from states_java") :]])
    assert java.run(f"select content from states where id = '{uid(2)}'") == (("größe",),)


LATIN1_ROW = f"""
    insert into states (id, tenant_id, flow_id, flow_version_id, is_done, current_map_element_id, created_at, updated_at,
                        content)
    values ('{uid(1)}', '{TENANT}', '{uid(100)}', '{uid(101)}', 1, '{uid(9)}', '2026-03-01', '2026-03-01', '["größe"]')
"""


def test_columns_that_take_no_null_stop_neither_saving_nor_the_way_back(postgresql, tmp_path):
    """As the Java service's first version made them: an element of the map was required."""
    create = CREATE["postgresql"].replace("current_map_element_id uuid", "current_map_element_id uuid not null")
    java = made(postgresql, create.replace("timestamp with time zone", "timestamp(3) without time zone"))
    plan = adopted(java, tmp_path)
    with opened(java) as store:
        text = "2026-03-02T01:00:00.1234567+02:00"
        assert store.save(TENANT, [a_state(1, text, created_at=store_time(text), content="{}")], None).stored == 1
    give_back(java, plan["back"])
    assert java.run("select created_at::text, updated_at::text from states") == [("2026-03-01 23:00:00.123",) * 2]
