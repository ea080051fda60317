"""What a database server reports about itself, for operators; nothing is changed."""

import time
from dataclasses import dataclass

from sqlalchemy import Connection, text

from receiver.stores.deadline import bounded
from receiver.stores.sql import errors, upgrade
from receiver.stores.sql.engine import make_engine
from receiver.stores.urls.store_url import StoreURL

_QUESTIONS = {
    "postgresql": """
        select extract(epoch from clock_timestamp())::float8      as clock,
               current_setting('server_version', true)            as version,
               current_setting('fsync', true)                     as fsync,
               current_setting('full_page_writes', true)          as full_page_writes,
               current_setting('max_connections', true)           as max_connections,
               current_setting('transaction_read_only', true)     as read_only
    """,
    "mysql": """
        select unix_timestamp(sysdate(6))                         as clock,
               version()                                          as version,
               @@innodb_flush_log_at_trx_commit                   as innodb_flush_log_at_trx_commit,
               @@log_bin                                          as log_bin,
               @@sync_binlog                                      as sync_binlog,
               @@max_allowed_packet                               as max_allowed_packet,
               @@max_connections                                  as max_connections
    """,
}


@dataclass(frozen=True)
class Said:
    """What a server reported: the ``revision`` of the schema, if any, and its ``variables`` by name.

    ``is_java`` says that the tables are the Java service's. ``ahead`` is the number of seconds by which its clock is
    ahead of this one, give or take ``unsure``; None if it was not asked.
    """

    revision: str | None
    is_java: bool
    variables: dict[str, str]
    ahead: float | None = None
    unsure: float = 0.0


def ask(store_url: StoreURL, timeout: float) -> Said:
    """Return what the server of ``store_url`` reports within ``timeout`` seconds; raises the contract's errors."""
    engine = make_engine(store_url, timeout, 1)
    try:
        with errors.driver_errors(), bounded(timeout), engine.connect() as connection:
            revision = upgrade.revision_of(connection, store_url)
            is_java = revision is None and upgrade.is_of_the_java_service(connection, store_url)
            return Said(revision, is_java, *_variables(connection, store_url.kind))
    finally:
        engine.dispose()


def _variables(connection: Connection, kind: str) -> tuple[dict[str, str], float | None, float]:
    if kind not in _QUESTIONS:
        return {}, None, 0.0
    began = time.time()
    row = connection.execute(text(_QUESTIONS[kind])).mappings().one()
    ended = time.time()
    found = {name: str(value) for name, value in row.items() if value is not None}
    return found, float(found.pop("clock")) - (began + ended) / 2, (ended - began) / 2
