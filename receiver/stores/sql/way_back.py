"""The way back to the Java service: a query finds the states that would stop its statements before they run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from receiver.problems import StoreMisplaced
from receiver.stores.sql import upgrade
from receiver.stores.sql.adoption_statements import enter_schema
from receiver.stores.sql.errors import driver_errors
from receiver.stores.urls.store_url import StoreURL

STATES_SHOWN = 20
_SEALED, _SHARED = "sealed", "the id of another tenant's state as well"
_OPEN = "STORAGE_CLEAR_STATES=write receiver store reseal --open --stopped"
_DELETE = "receiver store delete TENANT ID, where no newer save will come"
_FIXES = {_SEALED: _OPEN, _SHARED: "receiver store delete TENANT ID, that of one of the two"}
# Tries each conversion of the way back in a function, since a failure ends a statement. Gone with the transaction.
_REFUSAL = """create function pg_temp.refusal(content text, variadic times text[]) returns text language plpgsql as $$
declare one text; begin
    perform content::{type};
    foreach one in array times loop perform one::timestamptz; end loop;
    return null;
exception when others then return sqlerrm; end $$"""


@dataclass
class Stopper:
    """A ``reason`` that ``count`` states stop the way back; some of them, as (tenant, id); and the fix."""

    reason: str
    fix: str
    count: int = 0
    states: list[tuple[str, str]] = field(default_factory=list)


def questions(store_url: StoreURL, content_type: str, lacks: str | None = None) -> list[str]:
    """Return the statements that find what stops the way back: the last but one is the query, the last ends it.

    ``content_type`` is the type of the Java service's column, as its engine writes it. ``lacks`` is the character set
    of its MariaDB or MySQL table, if some characters are missing from it.
    """
    if store_url.kind == "postgresql":
        schema = store_url.parameters.get("search_path")
        refusal = "pg_temp.refusal(content, created_at, updated_at, expires_at)"
        return [
            "begin",
            *([enter_schema(schema)] if schema else []),
            _REFUSAL.format(type=content_type),
            _query(f"when {refusal} is not null then {refusal}"),
            "rollback",
        ]
    if store_url.kind == "mysql":
        cases = ["when not json_valid(content) then 'not JSON as this server takes it'"] * (content_type == "JSON")
        if lacks:
            there = f"convert(convert(content using {lacks}) using utf8mb4) collate utf8mb4_bin"
            cases.append(f"when {there} <> content then 'characters that {lacks} lacks'")
        return ["start transaction read only", _query(" ".join(cases)), "rollback"]
    return ["begin transaction", _query("when isjson(content) = 0 then 'not JSON'"), "rollback"]


def _query(cases: str) -> str:
    shared = f"when id in (select id from states group by id having count(*) > 1) then '{_quoted(_SHARED)}'"  # noqa: S608
    reason = f"case when sealing_key is not null then '{_SEALED}' {cases} {shared} end"
    return (
        f"select tenant_id, id, reason from (select tenant_id, id, {reason} as reason from states) as looked_at"  # noqa: S608
        " where reason is not null order by tenant_id, id"
    )


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def check(engine: Engine, store_url: StoreURL, asked: Sequence[str]) -> list[Stopper]:
    """Return what stops the way back of the adopted database at ``store_url``, most frequent first.

    ``asked`` are the statements of ``questions``. Changes nothing.
    """
    found: dict[str, Stopper] = {}
    with driver_errors(), engine.execution_options(no_parameters=True).begin() as connection:
        *before, query, _end = asked[1:]
        for statement in before:
            connection.exec_driver_sql(statement)
        rows = connection.execution_options(stream_results=True, max_row_buffer=1000).exec_driver_sql(query)
        for tenant, id, reason in rows:
            one = found.setdefault(reason, Stopper(reason, _FIXES.get(reason, _DELETE)))
            one.count += 1
            if len(one.states) < STATES_SHOWN:
                one.states.append((str(tenant), str(id)))
        rows.close()
        connection.rollback()
    return sorted(found.values(), key=lambda one: -one.count)


def questions_of(engine: Engine, store_url: StoreURL) -> list[str]:
    """Return the questions for an adopted database; on PostgreSQL the Java service kept contents as jsonb.

    Raises StoreMisplaced if the database is not the receiver's, or the Java service's own table is gone.
    """
    with driver_errors(), engine.connect() as connection:
        upgrade.check_revision(connection, store_url)
        if store_url.kind != "mysql":
            return questions(store_url, "jsonb")
        if not connection.exec_driver_sql("show tables like 'states_java'").all():
            raise StoreMisplaced("the database holds no table states_java: without it there is no way back")
        return questions(store_url, *column_of(connection, "states_java"))


def column_of(connection: Connection, table: str) -> tuple[str, str | None]:
    """Return the type of ``table``'s contents, and its character set if that lacks characters (MariaDB, MySQL)."""
    made = connection.exec_driver_sql(f"show create table {table}").one()[1].lower()
    row = connection.exec_driver_sql(
        "select data_type, character_set_name from information_schema.columns"  # noqa: S608 - a name of ours
        f" where table_schema = database() and table_name = '{table}' and column_name = 'content'"
    ).one()
    is_json = row[0].lower() == "json" or "json_valid(`content`)" in made
    return "JSON" if is_json else row[0], row[1] if row[1] not in (None, "utf8mb4") else None
