"""Alembic's folder: ``versions/`` holds one step each, numbered; none is edited once it was released.

A step that runs on MariaDB or MySQL must do no harm when it is done twice: there it is no transaction, so it may
break off half-way, and two replicas may be at it at once.
"""
