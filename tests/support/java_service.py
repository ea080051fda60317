"""The Java service by its own statements: its table, what it writes, and giving the states back to it."""

import contextlib
import json

import psycopg
import pymysql

from tests.support.states import uid

TENANT, OTHER = uid(1), uid(2)
COUNT = 40
CREATE = {
    "postgresql": """
        create table states (
            id uuid not null constraint states_pk primary key, tenant_id uuid not null, parent_id uuid,
            flow_id uuid not null, flow_version_id uuid not null, is_done boolean not null,
            current_map_element_id uuid, current_user_id uuid, created_at timestamp with time zone not null,
            updated_at timestamp with time zone not null, expires_at timestamp with time zone, content jsonb not null
        )
    """,
    "mariadb": """
        create table states (
            id char(36) not null primary key, tenant_id char(36) not null, parent_id char(36),
            flow_id char(36) not null, flow_version_id char(36) not null, is_done bit not null,
            current_map_element_id char(36), current_user_id char(36), created_at datetime(6) not null,
            updated_at datetime(6) not null, expires_at datetime(6), content json not null
        )
    """,
}
UPSERT = {
    "postgresql": """
        insert into states (id, tenant_id, parent_id, flow_id, flow_version_id, is_done, current_map_element_id,
                            current_user_id, created_at, updated_at, expires_at, content)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s::timestamptz, %s::timestamptz, %s::timestamptz, %s::jsonb)
        on conflict (id) do update
           set flow_id = excluded.flow_id, flow_version_id = excluded.flow_version_id, is_done = excluded.is_done,
               updated_at = excluded.updated_at, expires_at = excluded.expires_at, content = excluded.content
         where states.updated_at <= excluded.updated_at
    """,
    "mariadb": """
        insert into states (id, tenant_id, parent_id, flow_id, flow_version_id, is_done, current_map_element_id,
                            current_user_id, created_at, updated_at, expires_at, content)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        on duplicate key update content = if(updated_at <= values(updated_at), values(content), content),
                                updated_at = if(updated_at <= values(updated_at), values(updated_at), updated_at)
    """,
}
SELECT = "select content from states where id = %s and tenant_id = %s"


class Java:
    """The statements of the Java service, on ``engine`` ("postgresql" or "mariadb")."""

    def __init__(self, engine, server, database):
        self.engine, self.server, self.database = engine, server, database

    @contextlib.contextmanager
    def cursor(self):
        if self.engine == "postgresql":
            connection = psycopg.connect(self.server.url(self.database), autocommit=True)
        else:
            connection = pymysql.connect(
                host="127.0.0.1", port=self.server.port, user="receiver", password=self.server.password,
                database=self.database, autocommit=True,
            )  # fmt: skip
        with contextlib.closing(connection):
            yield connection.cursor()

    def run(self, sql, values=()):
        with self.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    def make(self):
        self.run(CREATE[self.engine])
        self.run("create table flyway_schema_history (installed_rank int primary key, description varchar(200))")
        self.run("insert into flyway_schema_history values (1, 'create states')")

    def save(self, number, content, minute=0):
        return self.run(UPSERT[self.engine], self.row(number, content, minute))

    def row(self, number, content, minute=0):
        stamp = f"2026-03-01 10:{minute:02d}:00.123456" + ("+00" if self.engine == "postgresql" else "")
        parent = uid(500) if number % 2 else None
        return (
            uid(number), TENANT if number % 3 else OTHER, parent, uid(100), uid(101), number % 2 == 0, None, uid(7),
            stamp, stamp, stamp if number % 5 == 0 else None, json.dumps(content),
        )  # fmt: skip

    def load(self, number, tenant=None):
        rows = self.run(SELECT, (uid(number), tenant or (TENANT if number % 3 else OTHER)))
        return [json.loads(value) if isinstance(value, str) else value for (value,) in rows]


def content_of(number):
    return {"number": number, "text": "größe \U0001f469 'quoted' 100% \\", "nested": [1, None, {"a": "b"}]}


def give_back(java, statements):
    """Run ``statements`` in one session, as an administrator would paste them."""
    with java.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
