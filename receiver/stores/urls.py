"""Which store is meant: a URL, as people write it, → Place. Everything in it is understood or refused by name.

| kind       | URL                                                                              |
|------------|----------------------------------------------------------------------------------|
| sqlite     | ``sqlite:///relative/path``, ``sqlite:////absolute/path``                          |
| file       | ``file:///absolute/path``                                                        |
| postgresql | ``postgresql://user:password@host:5432,host2:5432/database?sslmode=verify-full`` |
| mysql      | ``mysql://user:password@host:3306/database``, ``mariadb://…``                    |
| sqlserver  | ``sqlserver://user:password@host:1433/database`` (written, not run here)         |

A ``jdbc:`` URL of each kind but ``file`` is translated first (``jdbc.py``). A message says what is valid and
repeats nothing of a URL but the names of parameters: the rest may be a secret.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from receiver.stores import jdbc

VALID_URLS = (
    "sqlite:///path, file:///path, postgresql://…, mysql://…, mariadb://…, sqlserver://… or a jdbc: URL of these"
)
SERVERS = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlserver": "sqlserver",
}
TITLES = {
    "sqlite": "SQLite",
    "file": "files",
    "postgresql": "PostgreSQL",
    "mysql": "MariaDB/MySQL",
    "sqlserver": "SQL Server",
}
_PORTS = {"postgresql": 5432, "mysql": 3306, "sqlserver": 1433}
# What may follow the "?", and what each means to the driver: those of libpq, of the MySQL shell, of SQL Server.
# A password or a user there would be shown where a URL is shown. What bounds the waiting follows STORAGE_STORE_TIMEOUT.
_POSTGRESQL = """
    application_name channel_binding gssencmode keepalives keepalives_count keepalives_idle keepalives_interval
    krbsrvname load_balance_hosts options passfile require_auth search_path sslcert sslcrl sslcrldir sslkey sslmode
    sslnegotiation sslrootcert ssl_max_protocol_version ssl_min_protocol_version target_session_attrs
    connect_timeout tcp_user_timeout
"""
PARAMETERS = {
    "postgresql": frozenset(_POSTGRESQL.split()),
    "mysql": frozenset({"ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "connect-timeout"}),
    "sqlserver": frozenset(
        {
            "encrypt",
            "trust-server-certificate",
            "host-name-in-certificate",
            "multi-subnet-failover",
            "application-intent",
        }
    ),
}
_VALUES = {
    ("postgresql", "sslmode"): ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    ("postgresql", "target_session_attrs"): ("any", "read-write", "primary", "prefer-standby", "read-only", "standby"),
    ("postgresql", "load_balance_hosts"): ("disable", "random"),
    ("mysql", "ssl-mode"): ("disabled", "preferred", "required", "verify-ca", "verify-identity"),
    ("sqlserver", "encrypt"): ("yes", "no", "strict"),
    ("sqlserver", "trust-server-certificate"): ("yes", "no"),
    ("sqlserver", "multi-subnet-failover"): ("yes", "no"),
    ("sqlserver", "application-intent"): ("readwrite",),
}
_NUMBERS = re.compile("|".join(("connect.timeout", "tcp_user_timeout", "keepalives.*")))
_HOST = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+|(?:%2F|/)[^:,]+)?)(?::(?P<port>\d{1,5}))?", re.ASCII
)
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store lies. ``path`` is that of a file or folder; the rest is that of a database server.

    ``hosts`` are (name, port) in the order in which they are tried; a name that begins with "/" is the folder of
    a Unix socket. ``parameters`` are those of PARAMETERS.
    """

    kind: str
    path: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    database: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def with_credentials(self, username: str, password: str) -> "Place":
        """Return this place with ``username`` and ``password`` where its URL named none."""
        if self.kind not in _PORTS:
            return self
        return dataclasses.replace(self, username=self.username or username, password=self.password or password)

    def __str__(self) -> str:
        """Where the data lies, for people and for an audit: no user, no password, no parameter."""
        if self.kind not in _PORTS:
            return f"{TITLES[self.kind]}, {os.path.abspath(self.path)}"
        hosts = ",".join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in self.hosts)
        return f"{TITLES[self.kind]}, {hosts}, database {self.database}"


def parse(url: str) -> Place:
    """Return the Place that ``url`` names; raises ValueError, which says what is valid."""
    url = jdbc.translate(url) if url.startswith("jdbc:") else url
    scheme = url.partition(":")[0]
    if scheme == "sqlite" and url.startswith("sqlite:///"):
        return Place("sqlite", path=_sqlite_path(url.removeprefix("sqlite:///")))
    if scheme == "file" and url.startswith("file:///"):
        return Place("file", path=_folder(url.removeprefix("file://")))
    if scheme in SERVERS and url.startswith(f"{scheme}://"):
        return _server(SERVERS[scheme], url)
    raise ValueError(f"must be {VALID_URLS}")


def _sqlite_path(path: str) -> str:
    if not path or path.startswith(":memory:"):
        raise ValueError("must name a file, since a state that was acknowledged must outlive the process")
    if set(path) & set("?#;\0"):
        raise ValueError("takes no parameters for SQLite")
    return path


def _folder(path: str) -> str:
    if set(path) & set("?#;"):
        raise ValueError("takes no parameters for a folder")
    folder = unquote(path)
    if not folder.strip("/") or "\0" in folder:
        raise ValueError("must name a folder of its own, such as file:///var/lib/receiver")
    return folder


def _server(kind: str, url: str) -> Place:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("must name a host and a database, such as postgresql://host:5432/database") from None
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database or "\0" in database:
        raise ValueError("must end in the name of a database, such as postgresql://host:5432/database")
    if parts.fragment:
        raise ValueError("holds a '#'; in a user, a password or a name it is written %23")
    parameters = _parameters(kind, parts.query)
    return Place(
        kind,
        hosts=tuple(_host(kind, one) for one in hosts.split(",")),
        database=database,
        username=unquote(username),
        password=unquote(password),
        parameters=parameters,
    )


def _host(kind: str, text: str) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if not match or int(match["port"] or 1) not in range(1, 65536):
        raise ValueError(
            "must name its hosts as name:port, separated by commas;"
            " in a user or password, @ / : , are written %40 %2F %3A %2C"
        )
    name = match["ipv6"] or unquote(match["name"] or "") or "localhost"
    return name, int(match["port"] or _PORTS[kind])


def _parameters(kind: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        known = name.replace("_", "-") if kind != "postgresql" else name
        if known not in PARAMETERS[kind]:
            shown = name if name.isprintable() and len(name) <= 40 else "(unprintable)"
            raise ValueError(f"has a parameter that is not known for {TITLES[kind]}: {shown}")
        if known in found:
            raise ValueError(f"has the parameter {known} twice")
        _check_value(kind, known, value)
        found[known] = value
    return found


def _check_value(kind: str, name: str, value: str) -> None:
    valid = _VALUES.get((kind, name))
    if valid and value not in valid:
        raise ValueError(f"has a parameter {name}, which must be one of {', '.join(valid)}")
    if _NUMBERS.fullmatch(name) and not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise ValueError(f"has a parameter {name}, which must be a whole number")
    if name == "search_path" and not _SCHEMA.fullmatch(value):
        raise ValueError("has a parameter search_path, which must be the name of one schema")
    if not value:
        raise ValueError(f"has a parameter {name} without a value")


def query_of(parameters: Mapping[str, str]) -> str:
    """Return ``parameters`` as the end of a URL: "?name=value&…", or "" when there are none."""
    return (
        "?" + "&".join(f"{name}={quote(value, safe='/')}" for name, value in parameters.items()) if parameters else ""
    )
