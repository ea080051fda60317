"""Alembic runs this: it runs the steps on the connection of ``upgrade.py``, in its transaction."""

from alembic import context

from receiver.stores.sql.schema import VERSION_TABLE

given = context.config.attributes
context.configure(connection=given["connection"], version_table=VERSION_TABLE, version_table_schema=given["schema"])
context.run_migrations()
