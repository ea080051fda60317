"""Alembic's folder: ``versions/`` holds the numbered steps; a released step is never edited.

A step must be safe to run twice: on MariaDB and MySQL it is no transaction, so it may stop half-way, and two replicas
may run it at once.
"""
