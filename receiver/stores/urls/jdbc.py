"""A ``jdbc:`` URL, as the Java service took it, → the native URL of the same store, which ``store_url.py`` reads.

Each kind is read as its driver reads it; this was tried with the drivers themselves:

| kind                   | credentials                           | %XX    | +     | names of parameters     |
|------------------------|---------------------------------------|--------|-------|-------------------------|
| ``jdbc:sqlite:``       | none                                  | itself | itself | none are taken          |
| ``jdbc:postgresql:``   | ``?user=…&password=…``                | byte   | space | case matters            |
| ``jdbc:mysql:``        | the same, or ``//user:password@host`` | byte   | space | case matters            |
| ``jdbc:mariadb:``      | ``?user=…&password=…``                | itself | itself | case matters here       |
| ``jdbc:sqlserver:``    | ``;user=…;password={…}``              | itself | itself | case does not matter    |

``jdbc_parameters.py`` says what each parameter means. Of several about TLS to MySQL or MariaDB, the strictest holds.
What a Java driver does by default is made explicit in the native URL where our driver might do less. No message
repeats anything of a URL but the name of a parameter.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote, unquote, unquote_plus, urlencode

from receiver.stores.urls.jdbc_parameters import CONNECTOR_J, MARIADB, POSTGRESQL, SQLSERVER, Parameter

_TLS_OF_MYSQL = ("disabled", "preferred", "required", "verify-ca", "verify-identity")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}", re.ASCII)
_MYSQL = re.compile(
    r"(?:(?P<mode>[\w-]+):)?//(?P<authority>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL | re.ASCII
)
# Uses of several hosts other than trying them in order.
_MODES = {
    "loadbalance": "spreads its load over the hosts",
    "load-balance-read": "spreads its load over the hosts",
    "replication": "reads from other hosts than it writes to",
    "aurora": "asks the hosts for their roles",
}
_SQLSERVER = re.compile(r"(?P<host>\[[^\]]*\]|[^\\:\[\]]*)(?:\\(?P<instance>[^:]*))?(?::(?P<port>[^:]*))?")
_PROPERTY = re.compile(r"\s*(?:(?P<name>[^=;{}]*)=(?:\s*\{(?P<braced>(?:[^}]|\}\})*)\}\s*|(?P<plain>[^;{]*)))?(?:;|\Z)")
# "sequential" tries them in this order, "failover" in random order, for which this order will do.
_MARIADB_HOSTS = "jdbc:mariadb:sequential://host1,host2/database"
_PASSWORD = "; a password with special characters is best given as DATABASE_PASSWORD"  # noqa: S105


def translate(url: str) -> str:
    """Return the native URL with the meaning of ``url``; raises ValueError, which says what is valid."""
    for prefix, native in _KINDS.items():
        if url.startswith(prefix):
            return native(url.removeprefix(prefix))
    raise ValueError(f"must begin with one of {', '.join(_KINDS)}")


def decoded(text: str, plus: bool = False) -> str:
    """Return ``text`` without its percent-encoding, with ``plus`` a "+" as a space; raises ValueError."""
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise ValueError("holds a % that no two hexadecimal digits follow; a % itself is written %25")
    try:
        found = (unquote_plus if plus else unquote)(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("holds %XX that are not UTF-8") from None
    if "\0" in found:
        raise ValueError("holds %00, which no name and no password can have")
    return found


def _with_plus(text: str) -> str:
    return decoded(text, plus=True)


def _sqlite(path: str) -> str:
    if path.startswith((":resource:", "file:", "jar:")):
        raise ValueError("must name its file by a path, such as jdbc:sqlite:/var/lib/receiver/receiver.db")
    return f"sqlite:///{path}"


def _postgresql(text: str) -> str:
    address, _, query = text.partition("?")
    found = _meanings(_pairs(query, POSTGRESQL, _with_plus), POSTGRESQL, "pgjdbc")
    hosts, slash, database = address[2:].partition("/") if address.startswith("//") else ("localhost", "/", address)
    if not slash:
        raise ValueError("must end in / and a database, such as jdbc:postgresql://host:5432/database")
    return _native("postgresql", hosts, _with_plus(database), _postgresql_tls(found))


def _postgresql_tls(found: dict[str, str]) -> dict[str, str]:
    """Return ``found`` with pgjdbc's ssl and sslfactory as libpq's sslmode, which pgjdbc prefers to ssl.

    ssl=true alone means verify-full, since pgjdbc 42.2.5. With NonValidatingFactory nothing verifies the certificate,
    although pgjdbc compares its name: that is "require".
    """
    ssl, trusting = found.pop("ssl", ""), found.pop("sslfactory", "")
    if trusting and found.get("sslmode", "").startswith("verify"):
        raise ValueError("has a parameter sslfactory, which contradicts its sslmode: one checks, the other does not")
    if ssl:
        checked = "require" if trusting else "verify-full"
        found.setdefault("sslmode", checked if ssl == "true" else "prefer")
    return found


def _mysql(text: str) -> str:
    if "#" in text:  # Connector/J ends the URL there, which may cut a password
        raise ValueError("holds a '#'; in a user, a password or a name it is written %23")
    authority, database, query = _parts_of_mysql(text, "jdbc:mysql://host1,host2/database?failOverReadOnly=false")
    credentials, _, hosts = authority.rpartition("@")
    pairs = [*_user_of_mysql(credentials), *_pairs(query, CONNECTOR_J, _with_plus, strip=True)]
    found = _meanings(pairs, CONNECTOR_J, "Connector/J")
    writable = found.pop("readonly", "") == "false"
    if "," in hosts and not writable:
        # Connector/J only reads from all hosts but the first: writing there may mean writing to a replica.
        raise ValueError("names several hosts; failOverReadOnly=false says that each of them may be written to")
    return _native("mysql", hosts.strip(), _with_plus(database).strip(), _mysql_tls(found))


def _user_of_mysql(credentials: str) -> list[tuple[str, str]]:
    if set("@,") & set(credentials):  # to Connector/J, a comma begins another host, which may have its own user
        raise ValueError("must have one user, before its hosts; in a user or password, @ , are written %40 %2C")
    user, _, password = credentials.partition(":")
    return [(name, _with_plus(text.strip())) for name, text in (("user", user), ("password", password)) if text]


def _parts_of_mysql(text: str, several: str, *modes: str) -> tuple[str, str, str]:
    """Return authority, database and query of ``text``, whose mode is none or one of ``modes``.

    Raises ValueError, which shows ``several`` hosts that are tried in their order.
    """
    match = _MYSQL.fullmatch(text)
    mode = match and match["mode"]
    if mode in _MODES:
        raise ValueError(f"is of the kind {mode}, which {_MODES[mode]}; hosts are tried in order, such as {several}")
    if not match or (mode and mode not in modes):
        raise ValueError(f"must name its hosts and its database, such as {several}")
    return match["authority"], match["database"] or "", match["query"] or ""


def _mariadb(text: str) -> str:
    hosts, database, query = _parts_of_mysql(text, _MARIADB_HOSTS, "sequential", "failover")
    found = _meanings(_pairs(query, MARIADB, str), MARIADB, "MariaDB Connector/J")
    trusting, nameless = (found.pop(name, "") == "true" for name in ("trusting", "nameless"))
    usual = "required" if trusting else "verify-ca" if nameless else "verify-identity"
    if "usessl" in found:
        mode = usual if found.pop("usessl") == "true" else "disabled"
        found["ssl-mode"] = _stricter(mode, found.get("ssl-mode", mode))
    if "ssl-ca" in found and not found.get("ssl-mode", "").startswith("verify"):
        raise ValueError("has a parameter serverSslCert, which needs sslMode=verify-full (or verify-ca)")
    if "unix-socket" in found:
        hosts = ""  # the driver then ignores them
    return _native("mysql", hosts, database, _mysql_tls(found))


def _mysql_tls(found: dict[str, str]) -> dict[str, str]:
    """Return ``found`` with its ssl-mode.

    MariaDB's driver uses no TLS by default, Connector/J prefers it: here, TLS is used if the server offers it.
    PyMySQL always fetches the server's public key. Refusing that only matters without TLS: otherwise an attacker who
    could forge the key could forge an unverified certificate too.
    """
    found.setdefault("ssl-mode", "preferred")
    if found.pop("retrieval", "") and found["ssl-mode"] == "disabled":
        raise ValueError("has a parameter allowPublicKeyRetrieval, which cannot be false where there is no TLS")
    return found


def _sqlserver(text: str) -> str:
    address, _, properties = text.removeprefix("//").partition(";")
    match = _SQLSERVER.fullmatch(address.strip())
    if not match or not text.startswith("//"):
        raise ValueError("must name its host, such as jdbc:sqlserver://host:1433;databaseName=database")
    where = (("serverName", match["host"]), ("instanceName", match["instance"]), ("portNumber", match["port"]))
    pairs = [*((name, value) for name, value in where if value), *_properties(properties)]
    found = _meanings(pairs, SQLSERVER, "mssql-jdbc")
    host, port, database = (found.pop(name, "") for name in ("host", "port", "database"))
    if found.pop("instance", "") and not port:
        raise ValueError("names an instance (instanceName), whose port the SQL Server Browser knows: add portNumber")
    if not host or not database:
        raise ValueError("must have a host and a databaseName, as in jdbc:sqlserver://host:1433;databaseName=database")
    found.setdefault("encrypt", "yes")  # the default of mssql-jdbc since 10.1, whatever that of the driver here
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return _native("sqlserver", f"{name}:{port}" if port else name, database, found)


def _properties(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of each ``;name=value``; a value in braces may hold anything, with "}" doubled.

    Source: "Building the connection URL" of mssql-jdbc. Raises ValueError.
    """
    spelled = {name.lower(): name for name in SQLSERVER}
    position = 0
    while position < len(text):
        match = _PROPERTY.match(text, position)
        name = (match["name"] or "").strip() if match else ""
        if not match or not (_NAME.fullmatch(name) or match["name"] is None):
            raise ValueError("must have ;name=value after its host; a value with ; or { is {in braces}, } doubled")
        position = match.end()
        if name:
            value = match["plain"].strip() if match["braced"] is None else match["braced"].replace("}}", "}")
            yield spelled.get(name.lower(), name), value


def _pairs(
    query: str, table: Mapping[str, Parameter], decode: Callable[[str], str], strip: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield name and value of each ``&name=value``; raises ValueError, which does not repeat what may be a value."""
    for part in filter(None, query.split("&")):
        name, equals, value = (half.strip() if strip else half for half in part.partition("="))
        if not _NAME.fullmatch(name) or not (equals or name in table):
            raise ValueError(f"must have name=value after its ?, separated by &{_PASSWORD}")
        yield name, decode(value)


def _meanings(pairs: Iterable[tuple[str, str]], table: Mapping[str, Parameter], driver: str) -> dict[str, str]:
    """Return native name → value for the meaning of ``pairs`` to ``driver``; raises ValueError for unknown names."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name not in table:
            # A name after a password may be the rest of it, after a character that should have been written %XX.
            after_password = any("password" in one.lower() for one in seen)
            raise ValueError(_unknown("(after the password)" if after_password else name, table, driver))
        if name in seen:
            raise ValueError(f"has the parameter {name} twice")
        seen.add(name)
        native, meaning = table[name].native, table[name].meaning(name, value)
        if meaning:
            found[native] = _both(native, name, found[native], meaning) if native in found else meaning
    return found


def _unknown(name: str, table: Mapping[str, Parameter], driver: str) -> str:
    spelled = {known.lower(): known for known in table}.get(name.lower())
    if spelled:
        return f"has a parameter {name}, which {driver} spells {spelled}"
    return f"has a parameter of {driver} that is not known here, so that it cannot be translated: {name}"


def _both(native: str, name: str, one: str, other: str) -> str:
    """Return the value when two parameters mean ``native``: the shorter wait, the stricter TLS."""
    if native == "connect_timeout":
        return min(one, other, key=int)
    if native == "ssl-mode":
        return _stricter(one, other)
    raise ValueError(f"has a parameter {name} beside another of the same meaning")


def _stricter(*modes: str) -> str:
    return max(modes, key=_TLS_OF_MYSQL.index)


def _native(scheme: str, hosts: str, database: str, found: dict[str, str]) -> str:
    """Return the URL of ``database`` at ``hosts`` with the parameters ``found``; raises ValueError for wrong hosts."""
    if set(hosts) & set("@%/?#"):
        raise ValueError("must name its hosts as host:port, separated by commas, and its user as user=…" + _PASSWORD)
    user, password = (quote(found.pop(name, ""), safe="") for name in ("user", "password"))
    credentials = f"{user}:{password}@" if user or password else ""
    query = urlencode(found, quote_via=quote, safe="/")
    return f"{scheme}://{credentials}{hosts}/{quote(database, safe='')}" + (f"?{query}" if query else "")


_KINDS = {
    "jdbc:sqlite:": _sqlite,
    "jdbc:postgresql:": _postgresql,
    "jdbc:mysql:": _mysql,
    "jdbc:mariadb:": _mariadb,
    "jdbc:sqlserver:": _sqlserver,
}
