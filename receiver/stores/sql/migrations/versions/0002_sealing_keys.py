"""The key that sealed each state, and when each key was last used."""

import sqlalchemy as sa
from alembic import op

from receiver.stores.sql.schema import KID, OPTIONS, ROLE

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column and the table, where they are missing."""
    schema = op.get_context().version_table_schema
    if "sealing_key" not in {one["name"] for one in sa.inspect(op.get_bind()).get_columns("states", schema=schema)}:
        op.add_column("states", sa.Column("sealing_key", KID), schema=schema)
    op.create_table(
        "key_uses",
        sa.Column("role", ROLE, primary_key=True),
        sa.Column("kid", KID, primary_key=True),
        sa.Column("last_used", sa.BigInteger, nullable=False),
        if_not_exists=True,
        **OPTIONS,
    )
