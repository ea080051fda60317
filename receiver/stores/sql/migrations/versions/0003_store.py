"""What identifies this store among others: one row."""

import secrets
import uuid

import sqlalchemy as sa
from alembic import op

from receiver.stores.sql.schema import OPTIONS, STORE, TOKEN, UUID

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table and its row, where they are missing."""
    op.create_table(
        STORE,
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", UUID, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("token", TOKEN, nullable=False),
        if_not_exists=True,
        **OPTIONS,
    )
    id = sa.column("id", UUID)
    schema = op.get_context().version_table_schema
    table = sa.table(STORE, sa.column("one"), id, sa.column("generation"), sa.column("token"), schema=schema)
    connection = op.get_bind()
    if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0:
        row = {"one": 1, "id": str(uuid.uuid4()), "generation": 0, "token": secrets.token_hex(8)}
        connection.execute(sa.insert(table).values(row))
