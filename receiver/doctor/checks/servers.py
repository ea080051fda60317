"""Database servers: how durable a commit is, who can listen in, their connections, and whose tables they hold."""

import os
from collections.abc import Iterator

from receiver.doctor.findings import Finding, fail, warn
from receiver.network.addresses import Networks, address_of
from receiver.settings import Settings
from receiver.stores.sql.inspection import Said
from receiver.stores.sql.upgrade import HEAD
from receiver.stores.urls.store_url import StoreURL

TOPIC = "store"
_SMALL = 16 << 20  # bytes of a statement, the least that servers allow by default
_SHARE = 0.8  # of all connections that one receiver should hold at most
_HERE = Networks(["127.0.0.0/8", "::1/128"])
_SURE = {"postgresql": ("verify-full", "verify-ca"), "mysql": ("verify-identity", "verify-ca")}
_TLS = {
    "postgresql": "add ?sslmode=verify-full&sslrootcert=/path/of/the/authority.pem to the URL",
    "mysql": "add ?ssl-mode=verify-identity&ssl-ca=/path/of/the/authority.pem to the URL",
}


def missing(server: Said) -> str:
    """Return why there is no store in the database yet; empty if there is one."""
    if server.revision is not None:
        return ""
    if server.is_java:
        return "the database holds the states of the Java service, which have not been adopted"
    return "the tables of the store do not exist yet"


def outdated(server: Said) -> str:
    """Return why a start would change the schema; empty if it would not."""
    older = server.revision is not None and server.revision < HEAD
    return f"the schema is {server.revision}, and this program needs {HEAD}" if older else ""


def judged(server: Said, store_url: StoreURL, settings: Settings, whose: str) -> Iterator[Finding]:
    """Yield findings on the server of ``store_url``; ``whose`` begins each message on a tenant's own store."""
    yield from _durability(server.variables, whose)
    if store_url.kind in _SURE and not _is_verified(store_url):
        names = ", ".join(name for name, _ in store_url.hosts)
        message = f"{whose}nothing proves that {names} is the database: somebody on the network can take its place"
        yield warn(TOPIC, message, _TLS[store_url.kind])
    most, ours = int(server.variables.get("max_connections", 0)), settings.workers * settings.pool_size
    if most and ours > _SHARE * most:
        message = f"{whose}{settings.workers} workers may hold {ours} connections, and the server allows {most} in all"
        yield warn(TOPIC, message, f"STORAGE_POOL_SIZE={max(1, int(_SHARE * most) // settings.workers)}")
    if 0 < (packet := int(server.variables.get("max_allowed_packet", 0))) < _SMALL:
        message = f"{whose}max_allowed_packet is {packet >> 10} KiB: larger states are answered with 413"
        yield warn(TOPIC, message, "SET GLOBAL max_allowed_packet = 67108864, and in the server's configuration")


def _durability(variables: dict[str, str], whose: str) -> Iterator[Finding]:
    """Yield why an acknowledged save could be lost, or no save can be made."""
    if variables.get("read_only") == "on":
        message = f"{whose}the server takes no writes: it is a standby, or its settings make it read-only"
        yield fail(
            TOPIC, message, "name the primary in DATABASE_URL, or all hosts: postgresql://u:p@h1:5432,h2:5432/db"
        )
    if variables.get("fsync") == "off":
        message = f"{whose}fsync is off: a power failure of the server loses acknowledged saves"
        yield fail(TOPIC, message, "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()")
    if variables.get("full_page_writes") == "off":
        message = f"{whose}full_page_writes is off: half-written pages stay damaged, except on file systems such as ZFS"
        yield warn(TOPIC, message, "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()")
    if variables.get("innodb_flush_log_at_trx_commit", "1") != "1":
        setting = "innodb_flush_log_at_trx_commit"
        message = f"{whose}{setting} is not 1: a power failure of the server loses acknowledged saves"
        yield fail(TOPIC, message, f"SET GLOBAL {setting} = 1, and in the server's configuration")
    if variables.get("log_bin") == "1" and variables.get("sync_binlog") != "1":
        message = f"{whose}sync_binlog is not 1: after a power failure, replicas may lack acknowledged saves"
        yield warn(TOPIC, message, "SET GLOBAL sync_binlog = 1, and in the server's configuration")


def _is_verified(store_url: StoreURL) -> bool:
    """Tell whether the server is on this machine, or proves by a certificate that it is the right one."""
    if all(_is_here(name) for name, _ in store_url.hosts):
        return True
    asked, sure = store_url.parameters, _SURE[store_url.kind]
    if store_url.kind == "postgresql":
        return asked.get("sslmode", os.environ.get("PGSSLMODE")) in sure
    return asked.get("ssl-mode", "verify-ca" if "ssl-ca" in asked else "") in sure


def _is_here(name: str) -> bool:
    return name.startswith("/") or name == "localhost" or address_of(name) in _HERE
