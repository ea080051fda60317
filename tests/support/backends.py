"""The stores that the behavioural suite runs on."""

SERVERS = {  # and who makes their databases
    "postgresql": "postgresql",
    "embedded": "embedded",
    "pgbouncer": "postgresql",
    "mariadb": "mariadb",
}


def url_of_an_empty_store(request, backend, path):
    """Return the URL of an empty store of the kind ``backend``: at ``path``, or a new database of its server."""
    if backend == "sqlite":
        return f"sqlite:///{path}.db"
    if backend == "filesystem":
        return f"file://{path}"
    server = request.getfixturevalue(backend)
    return server.url(request.getfixturevalue(SERVERS[backend]).new_database())
