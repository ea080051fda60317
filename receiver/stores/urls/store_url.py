"""A store's URL, as people write it, → StoreURL. Everything in it is understood, or refused by name.

| kind       | URL                                                                              |
|------------|----------------------------------------------------------------------------------|
| sqlite     | ``sqlite:///relative/path``, ``sqlite:////absolute/path``                          |
| file       | ``file:///absolute/path``                                                        |
| postgresql | ``postgresql://user:password@host:5432,host2:5432/database?sslmode=verify-full`` |
| mysql      | ``mysql://user:password@host:3306/database``, ``mariadb://…``                    |
| sqlserver  | ``sqlserver://user:password@host:1433/database`` (written, not run here)         |

A Unix socket is ``postgresql://user@/database?host=/folder`` or ``mysql://user@/database?unix-socket=/path``; no
host at all is localhost. In a user, a password or a name, characters with a meaning in URLs are written %XX.

A ``jdbc:`` URL of any kind but ``file`` is translated first (``jdbc.py``). A message says what is valid, and repeats
nothing of a URL but the names of parameters: the rest may be secret.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from receiver.files import real_path
from receiver.stores.urls import jdbc

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
# The parameters after "?", with the meaning of libpq, the MySQL shell and SQL Server. User and password are not among
# them: they would be shown with the URL. STORAGE_STORE_TIMEOUT bounds the time-outs.
_POSTGRESQL = """
    application_name channel_binding gssencmode keepalives keepalives_count keepalives_idle keepalives_interval
    krbsrvname load_balance_hosts options passfile require_auth search_path sslcert sslcrl sslcrldir sslkey sslmode
    sslnegotiation sslrootcert ssl_max_protocol_version ssl_min_protocol_version target_session_attrs
    connect_timeout tcp_user_timeout host
"""
PARAMETERS = {
    "postgresql": frozenset(_POSTGRESQL.split()),
    "mysql": frozenset({"ssl-mode", "ssl-ca", "ssl-cert", "ssl-key", "connect-timeout", "unix-socket"}),
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
_SOCKETS = {"postgresql": "host", "mysql": "unix-socket"}  # the parameter that becomes the only one of ``hosts``
_NUMBERS = re.compile("|".join(("connect.timeout", "tcp_user_timeout", "keepalives.*")))
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+|%2[Ff][^:,]+)?)(?::(?P<port>\d{1,5}))?", re.ASCII)
_URL = re.compile(r"\w+://(?P<authority>[^/?#]*)/(?P<database>[^?#]*)(?:\?(?P<query>[^#]*))?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # also what Python makes of bytes that are not UTF-8
_NAME = re.compile(r"[A-Za-z][\w.-]{0,59}", re.ASCII)
_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)


Identity = tuple[object, ...]  # equal for all URLs of one store


@dataclass(frozen=True, slots=True)
class StoreURL:
    """Where a store is: the ``path`` of a file or folder, or the rest of the fields for a database server.

    ``hosts`` are (name, port) in the order in which they are tried; a name that begins with "/" is a Unix socket: its
    folder for PostgreSQL, the socket itself for MySQL. ``parameters`` are those of PARAMETERS.
    """

    kind: str
    path: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    database: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def with_credentials(self, username: str, password: str) -> "StoreURL":
        """Return this URL with ``username`` and ``password`` where it names none."""
        if self.kind not in _PORTS:
            return self
        return dataclasses.replace(self, username=self.username or username, password=self.password or password)

    def is_but_for_login(self, other: "StoreURL") -> bool:
        """Return whether ``other`` equals this URL in everything but user and password."""
        return dataclasses.replace(self, username=other.username, password=other.password) == other

    @property
    def identity(self) -> Identity:
        """What is equal for all URLs of the same store, whatever their spelling and login."""
        if self.kind not in _PORTS:
            return self.kind, real_path(self.path)
        hosts = tuple(sorted((name.lower(), port) for name, port in self.hosts))
        return self.kind, hosts, self.database, self.parameters.get("search_path")

    def __str__(self) -> str:
        """Return where the data is, for people and audits: no user, no password, no parameter."""
        if self.kind not in _PORTS:
            return f"{TITLES[self.kind]}, {os.path.abspath(self.path)}"
        hosts = ",".join(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in self.hosts)
        return f"{TITLES[self.kind]}, {hosts}, database {self.database}"


def parse(url: str) -> StoreURL:
    """Return the StoreURL that ``url`` names; raises ValueError, which says what is valid."""
    if _CONTROL.search(url):
        raise ValueError("must be one line in UTF-8, without control characters")
    url = jdbc.translate(url) if url.startswith("jdbc:") else url
    scheme = url.partition(":")[0]
    if scheme == "sqlite" and url.startswith("sqlite:///"):
        return StoreURL("sqlite", path=_sqlite_path(url.removeprefix("sqlite:///")))
    if scheme == "file" and url.startswith("file:///"):
        return StoreURL("file", path=_folder(url.removeprefix("file://")))
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
    folder = jdbc.decoded(path)
    if _CONTROL.search(folder):
        raise ValueError("holds a control character")
    if not folder.strip("/"):
        raise ValueError("must name a folder of its own, such as file:///var/lib/receiver")
    return folder


def _server(kind: str, url: str) -> StoreURL:
    if "#" in url:
        raise ValueError("holds a '#'; in a user, a password or a name it is written %23")
    match = _URL.fullmatch(url)
    database = jdbc.decoded(match["database"]) if match else ""
    if not match or not database or "/" in database or not database.isprintable():
        raise ValueError("must end in the name of a database, such as postgresql://host:5432/database")
    credentials, _, hosts = match["authority"].rpartition("@")
    if "@" in credentials or "@" in match["database"]:
        raise ValueError("holds more than one @; in a user, a password or a name it is written %40")
    username, _, password = credentials.partition(":")
    parameters = _parameters(kind, match["query"] or "")
    return StoreURL(
        kind,
        hosts=_hosts(kind, hosts, parameters.pop(_SOCKETS.get(kind, ""), "")),
        database=database,
        username=jdbc.decoded(username),
        password=jdbc.decoded(password),
        parameters=parameters,
    )


def _hosts(kind: str, text: str, socket: str) -> tuple[tuple[str, int], ...]:
    """Return name and port of each host in ``text``, or of the Unix ``socket``; raises ValueError."""
    unnamed = text.startswith(":") or not text
    if socket and not unnamed:
        raise ValueError(f"has a parameter {_SOCKETS[kind]}, beside which no host can be named, only :port")
    if unnamed and "," not in text:
        return ((socket or "localhost", _host(kind, text)[1]),)
    if kind == "sqlserver" and "," in text:
        raise ValueError("must name one host; the listener of an availability group takes multi-subnet-failover=yes")
    found = tuple(_host(kind, one) for one in text.split(","))
    if not all(name for name, _ in found):
        raise ValueError("must name each of its hosts")
    return found


def _host(kind: str, text: str) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if not match or int(match["port"] or 1) not in range(1, 65536):
        raise ValueError(
            "must name its hosts as name:port, separated by commas;"
            " in a user or password, @ / : , are written %40 %2F %3A %2C"
        )
    name = match["ipv6"] or jdbc.decoded(match["name"] or "")
    if name.startswith("/"):
        _check_socket(kind, name)
    return name, int(match["port"] or _PORTS[kind])


def _parameters(kind: str, query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, given, value in (one.partition("=") for one in query.split("&") if one):
        known = name.replace("_", "-") if kind != "postgresql" else name
        if known not in PARAMETERS[kind]:
            # The text after a stray "&" or "?" may be the end of a password.
            shown = f": {name}" if given and _NAME.fullmatch(name) else "; in a value, & is written %26"
            raise ValueError(f"has a parameter that is not known for {TITLES[kind]}{shown}")
        if known in found:
            raise ValueError(f"has the parameter {known} twice")
        found[known] = jdbc.decoded(value)
        _check_value(kind, known, found[known])
    if kind == "mysql":
        _check_files_of_mysql(found)
    return found


def _check_files_of_mysql(parameters: Mapping[str, str]) -> None:
    """Raise ValueError for a certificate that would be ignored: naming it means relying on it."""
    mode = parameters.get("ssl-mode")
    needs = {
        "ssl-ca": (mode in (None, "verify-ca", "verify-identity"), "ssl-mode=verify-identity or verify-ca"),
        "ssl-cert": (mode != "disabled", "another ssl-mode"),
        "ssl-key": ("ssl-cert" in parameters, "ssl-cert"),
    }
    for name, (looked_at, need) in needs.items():
        if name in parameters and not looked_at:
            raise ValueError(f"has a parameter {name}, which needs {need}")


def _check_socket(kind: str, path: str) -> None:
    # To libpq, a comma begins another host, and only an absolute path is a socket.
    if kind not in _SOCKETS or not re.fullmatch(r"/[^,]+", path) or not path.isprintable():
        raise ValueError("must name a host, or a Unix socket by its absolute path, without commas")


def _check_value(kind: str, name: str, value: str) -> None:
    valid = _VALUES.get((kind, name))
    if valid and value not in valid:
        raise ValueError(f"has a parameter {name}, which must be one of {', '.join(valid)}")
    if _NUMBERS.fullmatch(name) and not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise ValueError(f"has a parameter {name}, which must be a whole number")
    if name == "search_path" and not _SCHEMA.fullmatch(value):
        raise ValueError("has a parameter search_path, which must be the name of one schema")
    if name == _SOCKETS.get(kind):
        _check_socket(kind, value)
    if not value:
        raise ValueError(f"has a parameter {name} without a value")


def masked(url: str) -> str:
    """Return ``url`` in a form that may be shown: for a server, without user, password and parameters."""
    store_url = parse(url)
    return url if store_url.path else str(store_url)
