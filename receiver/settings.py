"""One declared table of settings: the fields of Settings. Environment → frozen Settings, or all mistakes.

Names without ``STORAGE_`` are those of the Java service that this replaces and mean what they meant there.
Each may also be given as ``NAME_FILE``, the path of a file that holds the value.
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from receiver import files, options
from receiver.keyring import kid_in_name
from receiver.stores import urls
from receiver.stores.urls import Place

_KEY_NAME = re.compile(r"(?:PLATFORM|RECEIVER)_KEY(?:_(.*))?")
_TENANT_NAME = re.compile(r"STORAGE_(TENANT|REGION)_(.*)")


class SettingsMistakes(Exception):
    """A start that cannot be: ``mistakes`` is a list of lines, each with the variable and what is valid."""

    def __init__(self, mistakes: list[str]):
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))


def _setting(name: str, default: object, parse: Callable[[str], object], help: str, secret: bool = False):
    metadata = {"name": name, "parse": parse, "help": help, "secret": secret}
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings of one receiver, each with its declared name, type, default and help."""

    database_url: str = _setting(
        "DATABASE_URL",
        "sqlite:///var/receiver.db",
        options.database_url,
        "Where states are kept (see Stores), also as the `jdbc:` URL that the Java service had.",
        secret=True,
    )
    jdbc_database_url: str = _setting(
        "JDBC_DATABASE_URL", "", options.database_url, "Read when `DATABASE_URL` is not set.", secret=True
    )
    database_username: str = _setting(
        "DATABASE_USERNAME", "", options.text, "User of the database server where the URL names none."
    )
    database_password: str = _setting(
        "DATABASE_PASSWORD",
        "",
        options.text,
        "Password of the database server where the URL names none; nothing in it needs escaping.",
        secret=True,
    )
    port: int = _setting(
        "PORT",
        0,
        options.whole(0, 65535),
        "Listen on this port of all addresses, as the Java service does, where `STORAGE_BIND` is not set.",
    )
    bind: str = _setting(
        "STORAGE_BIND",
        "127.0.0.1:8080",
        options.bind,
        "Address to listen on: `host:port`, `[ipv6]:port` or `unix:/path`. Port 0 takes a free one.",
    )
    workers: int = _setting(
        "STORAGE_WORKERS",
        2,
        options.whole(1, 256),
        "Processes that answer requests; as many as there are processors serve most of them.",
    )
    threads: int = _setting(
        "STORAGE_THREADS",
        8,
        options.whole(1, 256),
        "Threads in each of these processes: how many requests may wait for a store or a slow client at once."
        " More of them compute no more.",
    )
    keys: Path = _setting(  # noqa: RUF009 - a frozen declaration
        "STORAGE_KEYS",
        Path("keys"),
        options.directory,
        "Directory of key files; a folder in it named by a tenant's UUID holds keys for that tenant only.",
    )
    max_body: int = _setting(
        "STORAGE_MAX_BODY",
        32 << 20,
        options.size(1 << 10, 1 << 30),
        "Largest request body, in bytes, `KiB` or `MiB`.",
    )
    max_inflated: int = _setting(
        "STORAGE_MAX_INFLATED",
        64 << 20,
        options.size(1 << 10, 1 << 30),
        "Most that the compressed states of one request may inflate to together.",
    )
    clock_skew: float = _setting(
        "STORAGE_CLOCK_SKEW", 30.0, options.seconds(0, 300), "Seconds granted on `exp` and `nbf`."
    )
    replay: str = _setting(
        "STORAGE_REPLAY",
        "enforce",
        options.choice("enforce", "observe", "off"),
        "A `jti` used again for another change: `enforce` refuses it, `observe` logs it, `off` does not look.",
    )
    store_timeout: float = _setting(
        "STORAGE_STORE_TIMEOUT",
        10.0,
        options.seconds(0.1, 300),
        "Seconds to wait for a store that is locked or does not answer before 503 is answered.",
    )
    pool_size: int = _setting(
        "STORAGE_POOL_SIZE",
        8,
        options.whole(1, 256),
        "Connections to a database server that each process holds at most; as many as threads, so that none waits.",
    )
    read_timeout: float = _setting(
        "STORAGE_READ_TIMEOUT",
        30.0,
        options.seconds(1, 600),
        "Seconds in which a request, headers and body, must have arrived.",
    )
    graceful_timeout: int = _setting(
        "STORAGE_GRACEFUL_TIMEOUT",
        30,
        options.whole(1, 3600),
        "Seconds that running requests get to finish after SIGTERM.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "STORAGE_TRUSTED_PROXIES",
        (),
        options.addresses,
        "Addresses or networks, separated by commas, whose `X-Forwarded-For` is believed for the log.",
    )
    tenants: frozenset[str] = _setting(
        "STORAGE_TENANTS",
        frozenset(),
        options.uuids,
        "UUIDs of the only tenants served, separated by commas; others get 401. Any tenant that has keys, if empty.",
    )
    region: str = _setting(
        "STORAGE_REGION", "", options.label, "Where the store of `DATABASE_URL` stands, for `receiver store residency`."
    )
    log_level: str = _setting(
        "STORAGE_LOG_LEVEL",
        "info",
        options.choice("debug", "info", "warning", "error"),
        "Least severity that is logged.",
    )
    key_texts: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    tenant_stores: Mapping[str, "Resident"] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def listen(self) -> str:
        """The address to listen on: STORAGE_BIND, else PORT on all addresses, else the default."""
        if "port" in self.sources and "bind" not in self.sources:
            return f"0.0.0.0:{self.port}"
        return self.bind

    @property
    def store_url(self) -> str:
        """The URL of the store: DATABASE_URL, else JDBC_DATABASE_URL, else the default."""
        return self.jdbc_database_url if self._jdbc_decides else self.database_url

    @property
    def place(self) -> Place:
        """Where states are kept: ``store_url``, with DATABASE_USERNAME and DATABASE_PASSWORD where it names none."""
        return urls.parse(self.store_url).with_credentials(self.database_username, self.database_password)

    @property
    def store_variable(self) -> str:
        """The variable that ``store_url`` came from, or the one that would set it."""
        return self.sources.get("jdbc_database_url" if self._jdbc_decides else "database_url", "DATABASE_URL")

    @property
    def residents(self) -> dict[str | None, "Resident"]:
        """All stores: that of the rest under None, then those of tenants that have one of their own."""
        return {None: Resident(self.store_variable, self.place, self.region), **self.tenant_stores}

    @property
    def _jdbc_decides(self) -> bool:
        return "database_url" not in self.sources and bool(self.jdbc_database_url)


@dataclass(frozen=True, slots=True)
class Resident:
    """A store of a tenant's own: ``variable`` named its ``place``; ``region`` is a label for people."""

    variable: str
    place: Place
    region: str = ""


def declared() -> list[dataclasses.Field]:
    """Return the declared settings in the order of the table; each field's ``metadata`` tells name and help."""
    return [field for field in dataclasses.fields(Settings) if field.metadata]


def read(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the Settings of ``environ`` and all mistakes in it; a mistaken setting keeps its default."""
    given, mistakes = _given(environ)
    values: dict[str, object] = {}
    for field in declared():
        name = field.metadata["name"]
        if name not in given:
            continue
        value, source = given.pop(name)
        try:
            values[field.name] = field.metadata["parse"](value)
        except ValueError as cause:
            # A parser's message says what is valid and never repeats the value: it may be a secret.
            mistakes.append(f"{source}: {cause}")
        values.setdefault("sources", {})[field.name] = source
    values["tenant_stores"], more = _residents({name: given.pop(name) for name in list(given) if _tenant_in(name)})
    return Settings(**values, key_texts={source: value for value, source in given.values()}), mistakes + more


def _tenant_in(name: str) -> str | None:
    match = _TENANT_NAME.fullmatch(name)
    return kid_in_name(match.group(2), whole=True) if match else None


def _residents(given: dict[str, tuple[str, str]]) -> tuple[dict[str, Resident], list[str]]:
    """Return tenant → Resident of the STORAGE_TENANT_<uuid> and STORAGE_REGION_<uuid> in ``given``, and mistakes."""
    found: dict[str, Resident] = {}
    mistaken, mistakes = set(), []
    for name, (value, source) in sorted(given.items(), key=lambda one: "REGION" in one[0]):
        tenant = _tenant_in(name)
        try:
            if name.startswith("STORAGE_TENANT_") and tenant not in found:
                found[tenant] = Resident(source, urls.parse(value))
            elif name.startswith("STORAGE_REGION_") and tenant in found:
                found[tenant] = dataclasses.replace(found[tenant], region=options.label(value))
            elif tenant not in mistaken:
                raise ValueError("names a tenant that no STORAGE_TENANT_… does, or that another one does as well")
        except ValueError as cause:
            mistaken.add(tenant)
            mistakes.append(f"{source}: {cause}")
    return found, mistakes


def _is_key(name: str) -> bool:
    match = _KEY_NAME.fullmatch(name)
    return match is not None and (match.group(1) is None or kid_in_name(match.group(1), whole=True) is not None)


def _given(environ: Mapping[str, str]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return name → (value, variable it came from) of all variables that concern the receiver."""
    known = {field.metadata["name"] for field in declared()}
    given: dict[str, tuple[str, str]] = {}
    mistakes = []
    for variable, raw in sorted(environ.items()):
        name, from_file = variable, False
        if variable.endswith("_FILE") and variable not in known:
            name, from_file = variable.removesuffix("_FILE"), True
        concerns = name in known or variable.startswith("STORAGE_") or _KEY_NAME.fullmatch(name)
        if not concerns or not raw:  # an empty variable is how Compose writes one that is not set
            continue
        if name not in known and not _is_key(name) and not _tenant_in(name):
            mistakes.append(_unknown(variable))
            continue
        if name in given:
            mistakes.append(f"{variable}: {given[name][1]} is set as well; only one of them is valid")
            continue
        try:
            value = files.read_text(raw).rstrip("\r\n") if from_file else raw
        except ValueError as cause:
            mistakes.append(f"{variable}: the file it names {cause}")
            continue
        given[name] = (value, variable)
    return given, mistakes


def _unknown(variable: str) -> str:
    if _KEY_NAME.fullmatch(variable):
        return f"{variable}: must end in the key's kid, a UUID (underscores may stand for its hyphens)"
    if _TENANT_NAME.fullmatch(variable):
        return f"{variable}: must end in a tenant's UUID (underscores may stand for its hyphens)"
    names = [field.metadata["name"] for field in declared()]
    nearest = difflib.get_close_matches(variable, names, n=1, cutoff=0)[0]
    return f"{variable}: there is no such setting; the nearest is {nearest}"
