"""Database servers: what a commit is worth there, who may read along, how many may connect, whose tables they are."""

import os
from collections.abc import Iterator

from receiver.doctor.findings import Finding, fail, warn
from receiver.network.addresses import Networks, address_of
from receiver.settings import Settings
from receiver.stores.sql.inspection import Said
from receiver.stores.sql.upgrade import HEAD
from receiver.stores.urls.store_url import StoreURL

SUBJECT = "store"
_SMALL = 16 << 20  # bytes of a statement, the least that servers allow by default
_SHARE = 0.8  # of all connections that one receiver should hold at most
_HERE = Networks(["127.0.0.0/8", "::1/128"])
_SURE = {"postgresql": ("verify-full", "verify-ca"), "mysql": ("verify-identity", "verify-ca")}
_TLS = {
    "postgresql": "add ?sslmode=verify-full&sslrootcert=/path/of/the/authority.pem to the URL",
    "mysql": "add ?ssl-mode=verify-identity&ssl-ca=/path/of/the/authority.pem to the URL",
}


def missing(said: Said) -> str:
    """Return why there is no store in the database yet; empty when there is one."""
    if said.revision is not None:
        return ""
    if said.is_java:
        return "the database holds the states of the Java service, which nobody has adopted"
    return "the tables of the store are not there yet"


def outdated(said: Said) -> str:
    """Return why a start would change the schema; empty if it would not."""
    older = said.revision is not None and said.revision < HEAD
    return f"the schema is {said.revision}, and this program needs {HEAD}" if older else ""


def judged(said: Said, store_url: StoreURL, settings: Settings, whose: str) -> Iterator[Finding]:
    """Yield what is odd about the server of ``store_url``; ``whose`` begins each line of a tenant's own."""
    yield from _durability(said.variables, whose)
    if store_url.kind in _SURE and not _is_verified(store_url):
        names = ", ".join(name for name, _ in store_url.hosts)
        told = f"{whose}nothing proves that {names} is the database: somebody on the network can take its place"
        yield warn(SUBJECT, told, _TLS[store_url.kind])
    most, ours = int(said.variables.get("max_connections", 0)), settings.workers * settings.pool_size
    if most and ours > _SHARE * most:
        told = f"{whose}{settings.workers} workers may hold {ours} connections, and the server allows {most} in all"
        yield warn(SUBJECT, told, f"STORAGE_POOL_SIZE={max(1, int(_SHARE * most) // settings.workers)}")
    if 0 < (packet := int(said.variables.get("max_allowed_packet", 0))) < _SMALL:
        told = f"{whose}max_allowed_packet is {packet >> 10} KiB: larger states are answered 413"
        yield warn(SUBJECT, told, "SET GLOBAL max_allowed_packet = 67108864, and in the server's configuration")


def _durability(variables: dict[str, str], whose: str) -> Iterator[Finding]:
    """Yield why a save that was acknowledged could be lost, or cannot be made."""
    if variables.get("read_only") == "on":
        told = f"{whose}the server takes no writes: it is a standby, or read-only by its settings"
        yield fail(SUBJECT, told, "name the primary in DATABASE_URL, or all hosts: postgresql://u:p@h1:5432,h2:5432/db")
    if variables.get("fsync") == "off":
        told = f"{whose}fsync is off: what was acknowledged is lost with the server's power"
        yield fail(SUBJECT, told, "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()")
    if variables.get("full_page_writes") == "off":
        told = f"{whose}full_page_writes is off: pages that are half written stay so, but on file systems such as ZFS"
        yield warn(SUBJECT, told, "ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf()")
    if variables.get("innodb_flush_log_at_trx_commit", "1") != "1":
        told = f"{whose}innodb_flush_log_at_trx_commit is not 1: what was acknowledged is lost with the server's power"
        yield fail(SUBJECT, told, "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in the server's configuration")
    if variables.get("log_bin") == "1" and variables.get("sync_binlog") != "1":
        told = f"{whose}sync_binlog is not 1: replicas may miss what was acknowledged when the power goes"
        yield warn(SUBJECT, told, "SET GLOBAL sync_binlog = 1, and in the server's configuration")


def _is_verified(store_url: StoreURL) -> bool:
    """Tell whether the server is on this machine, or has to prove by a certificate that it is the one that is meant."""
    if all(_is_here(name) for name, _ in store_url.hosts):
        return True
    asked, sure = store_url.parameters, _SURE[store_url.kind]
    if store_url.kind == "postgresql":
        return asked.get("sslmode", os.environ.get("PGSSLMODE")) in sure
    return asked.get("ssl-mode", "verify-ca" if "ssl-ca" in asked else "") in sure


def _is_here(name: str) -> bool:
    return name.startswith("/") or name == "localhost" or address_of(name) in _HERE
