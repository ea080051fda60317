"""Run by Alembic: the steps on the connection that ``upgrade.py`` hands over, in its transaction."""

from alembic import context

from receiver.stores.sql.schema import VERSION_TABLE

given = context.config.attributes
context.configure(connection=given["connection"], version_table=VERSION_TABLE, version_table_schema=given["schema"])
context.run_migrations()
