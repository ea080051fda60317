"""States and receipts."""

import sqlalchemy as sa
from alembic import op

from receiver.stores.sql.schema import CONTENT, DIGEST, JTI, OPTIONS, UUID

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables and their indexes, where they are missing."""
    op.create_table(
        "states",
        sa.Column("tenant_id", UUID, primary_key=True),
        sa.Column("id", UUID, primary_key=True),
        sa.Column("parent_id", UUID),
        sa.Column("flow_id", UUID, nullable=False),
        sa.Column("flow_version_id", UUID, nullable=False),
        sa.Column("is_done", sa.Boolean, nullable=False),
        sa.Column("current_map_element_id", UUID),
        sa.Column("current_user_id", UUID),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("updated_at", sa.String(40), nullable=False),
        sa.Column("updated_second", sa.BigInteger, nullable=False),
        sa.Column("updated_nanosecond", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.String(40)),
        sa.Column("expires_second", sa.BigInteger),
        sa.Column("content", CONTENT, nullable=False),
        sa.Column("content_crc32", sa.BigInteger),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
        if_not_exists=True,
        **OPTIONS,
    )
    _create_receipts()
    _create_index("states_expires_second", "states", "expires_second")


def _create_receipts() -> None:
    op.create_table(
        "receipts",
        sa.Column("tenant_id", UUID, primary_key=True),
        sa.Column("jti", JTI, primary_key=True),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        if_not_exists=True,
        **OPTIONS,
    )
    _create_index("receipts_expires", "receipts", "expires")


def _create_index(name: str, table: str, column: str) -> None:
    schema = op.get_context().version_table_schema
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table, schema=schema)}:
        op.create_index(name, table, [column])
