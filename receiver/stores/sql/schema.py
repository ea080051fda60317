"""The four tables of a database server, as the statements see them. The migrations make them; a test compares both.

Columns are named as in the Java service that this program replaces, so that its table can be adopted and its readers
still work; attributes are those of rows.py. Ids are UUIDs where the engine has that type.
"""

from typing import Any

from sqlalchemy import (
    VARBINARY,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mssql, mysql, postgresql

VERSION_TABLE = "receiver_schema"  # Alembic's; the Java service's Flyway has one of its own, which stays
STORE = "receiver_store"  # not "store": the database may hold tables of others

UUID = (
    String(36)
    .with_variant(postgresql.UUID(as_uuid=False), "postgresql")
    .with_variant(mysql.CHAR(36, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    .with_variant(mssql.CHAR(36, collation="Latin1_General_100_BIN2"), "mssql")
)
CONTENT = (
    Text()
    .with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    .with_variant(mssql.NVARCHAR(None, collation="Latin1_General_100_BIN2"), "mssql")
)
# Compared by bytes: in a text collation "a" and "a " may be equal.
JTI = LargeBinary().with_variant(mysql.VARBINARY(1020), "mysql", "mariadb").with_variant(VARBINARY(1020), "mssql")
DIGEST = LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb").with_variant(mssql.BINARY(32), "mssql")
KID = String(36)
ROLE = String(16)
TOKEN = String(16)
OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",  # no other format holds keys as long as a jti
}

metadata = MetaData()

states = Table(
    "states",
    metadata,
    Column("tenant_id", UUID, key="tenant", primary_key=True),
    Column("id", UUID, primary_key=True),
    Column("parent_id", UUID, key="parent"),
    Column("flow_id", UUID, key="flow", nullable=False),
    Column("flow_version_id", UUID, key="flow_version", nullable=False),
    Column("is_done", Boolean, nullable=False),
    Column("current_map_element_id", UUID, key="current_map_element"),
    Column("current_user_id", UUID, key="current_user"),
    Column("created_at", String(40), nullable=False),
    Column("updated_at", String(40), nullable=False),
    # In an adopted row, the earliest time that updated_at may stand for (Instant.rounded); "newer wins" compares these.
    Column("updated_second", BigInteger, nullable=False),
    Column("updated_nanosecond", Integer, nullable=False),
    Column("expires_at", String(40)),
    Column("expires_second", BigInteger),
    Column("content", CONTENT, nullable=False),
    Column("content_crc32", BigInteger),  # null: adopted from the Java service
    Column("sealing_key", KID),  # null: in the clear
    Column("revision", Integer, nullable=False, server_default="0"),  # how often it was replaced
    **OPTIONS,
)
Index("states_expires_second", states.c.expires_second)

receipts = Table(
    "receipts",
    metadata,
    Column("tenant_id", UUID, key="tenant", primary_key=True),
    Column("jti", JTI, primary_key=True),
    Column("method", String(16), nullable=False),
    Column("digest", DIGEST, nullable=False),
    Column("expires", BigInteger, nullable=False),
    **OPTIONS,
)
Index("receipts_expires", receipts.c.expires)

key_uses = Table(
    "key_uses",
    metadata,
    Column("role", ROLE, primary_key=True),
    Column("kid", KID, primary_key=True),
    Column("last_used", BigInteger, nullable=False),
    **OPTIONS,
)

store = Table(
    STORE,
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),  # 1: there is one row
    Column("id", UUID, nullable=False),
    Column("generation", BigInteger, nullable=False),  # how often the store was made or accepted
    Column("token", TOKEN, nullable=False),
    **OPTIONS,
)
