"""One table of settings: the fields of Settings, each with its variable, type, default and help text.

Names without ``STORAGE_`` are those of the Java service that this one replaces; they mean what they meant there. Each
may also be given as ``NAME_FILE``, the path of a file with the value.
"""

# ruff: noqa: RUF009 - what _setting declares is frozen

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from receiver.secret import Secret
from receiver.settings import parsers
from receiver.settings.decided import Decided
from receiver.settings.tenant_stores import TenantStore


def _setting(name: str, default: object, parse: Callable[[str], object], text: str, secret: bool = False) -> Any:  # noqa: ANN401 - of the type of the field that it declares
    metadata = {"name": name, "parse": parse, "help": text, "secret": secret}
    return dataclasses.field(default=Secret(str(default)) if secret else default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Settings(Decided):
    """The settings of one receiver, each with its declared name, type, default and help text; then what they rest on.

    ``sources`` holds the variable of each setting that was set, ``paths`` the files that variables named, ``key_texts``
    the keys by variable. ``credentials`` is the folder where systemd puts what only this service may read. ``warnings``
    are lines about names that are nearly those of settings (receiver.settings.near_misses).
    """

    database_url: Secret = _setting(
        "DATABASE_URL",
        "sqlite:///var/receiver.db",
        parsers.database_url,
        "Where states are kept (see Stores), also as the `jdbc:` URL that the Java service had.",
        secret=True,
    )
    jdbc_database_url: Secret = _setting(
        "JDBC_DATABASE_URL", "", parsers.database_url, "Read when `DATABASE_URL` is not set.", secret=True
    )
    database_username: str = _setting(
        "DATABASE_USERNAME", "", parsers.login, "User of the database server where the URL names none."
    )
    database_password: Secret = _setting(
        "DATABASE_PASSWORD",
        "",
        parsers.login,
        "Password of the database server where the URL names none; nothing in it needs escaping.",
        secret=True,
    )
    port: int = _setting(
        "PORT",
        0,
        parsers.whole(0, 65535),
        "Listen on this port of all addresses, IPv6 and IPv4, as the Java service does. `STORAGE_BIND` wins over it.",
    )
    bind: str = _setting(
        "STORAGE_BIND",
        "127.0.0.1:8080",
        parsers.bind,
        "Address to listen on: `host:port`, `[ipv6]:port` or `unix:/path`. Port 0 takes a free one.",
    )
    workers: int = _setting(
        "STORAGE_WORKERS",
        2,
        parsers.whole(1, 256),
        "Processes that answer requests; as many as there are processors serve most of them.",
    )
    threads: int = _setting(
        "STORAGE_THREADS",
        8,
        parsers.whole(1, 256),
        "Threads in each of these processes: how many requests may wait for a store or a slow client at once."
        " More of them compute no more.",
    )
    keys: Path = _setting(
        "STORAGE_KEYS",
        Path("keys"),
        parsers.directory,
        "Directory of key files; a folder in it named by a tenant's UUID holds keys for that tenant only.",
    )
    sealing_key: Secret = _setting(
        "STORAGE_SEALING_KEY",
        "",
        parsers.text,
        "Key that seals content before it is stored, as `receiver keys sealing` makes it: a JWK, or a JWK set."
        " Those in `STORAGE_KEYS` count as well; the newest one writes, all read.",
        secret=True,
    )
    clear_states: str = _setting(
        "STORAGE_CLEAR_STATES",
        "refuse",
        parsers.choice("refuse", "read", "write"),
        "With a sealing key, content in the clear: `refuse` it; `read` it until `receiver store reseal` is done; or"
        " `write` it as well, so that `receiver store reseal --open` can open all for good.",
    )
    key_passphrase: Secret = _setting(
        "STORAGE_KEY_PASSPHRASE",
        "",
        parsers.text,
        "Opens keys that `receiver keys protect` has protected, and protects them there.",
        secret=True,
    )
    insecure_keys: str = _setting(
        "STORAGE_INSECURE_KEYS",
        "refuse",
        parsers.choice("refuse", "warn"),
        "A file with a private key that everybody on the machine can read: `refuse` to start, or only `warn`.",
    )
    tls_cert: str = _setting(
        "STORAGE_TLS_CERT",
        "",
        parsers.file,
        "PEM file of the certificate and its chain: the receiver then speaks TLS (1.2 or newer), and nothing else.",
    )
    tls_key: str = _setting(
        "STORAGE_TLS_KEY",
        "",
        parsers.file,
        "PEM file of the certificate's private key; both are read again when renewed.",
    )
    tls_client_ca: str = _setting(
        "STORAGE_TLS_CLIENT_CA",
        "",
        parsers.file,
        "PEM file of authorities: only clients with a certificate of one of them are answered.",
    )
    allow_from: tuple[str, ...] = _setting(
        "STORAGE_ALLOW_FROM",
        (),
        parsers.addresses,
        "Addresses or networks, separated by commas, of the only clients that are answered; behind trusted proxies,"
        " those that they name. Health is answered to the proxies themselves, too. All, if empty.",
    )
    public_prefix: str = _setting(
        "STORAGE_PUBLIC_PREFIX",
        "",
        parsers.prefix,
        "What the path that the platform calls and signs begins with, as `/flow`; also where a proxy takes it off.",
    )
    max_header: int = _setting(
        "STORAGE_MAX_HEADER",
        8190,
        parsers.size(8190, 64 << 10),
        "Largest header of a request, name and line end included, in bytes or `KiB`; service meshes add large ones.",
    )
    keep_alive: int = _setting(
        "STORAGE_KEEP_ALIVE",
        130,
        parsers.whole(1, 3600),
        "Seconds until an idle connection is closed. Let the proxy in front close its own sooner (see deploy/proxy).",
    )
    max_items: int = _setting(
        "STORAGE_MAX_ITEMS", 1000, parsers.whole(1, 1_000_000), "Most states, or ids, in one request."
    )
    max_body: int = _setting(
        "STORAGE_MAX_BODY", 32 << 20, parsers.size(1 << 10, 1 << 30), "Largest request body, in bytes, `KiB` or `MiB`."
    )
    max_inflated: int = _setting(
        "STORAGE_MAX_INFLATED",
        64 << 20,
        parsers.size(1 << 10, 1 << 30),
        "Most that the compressed states of one request may inflate to together.",
    )
    reply_compression: str | int = _setting(
        "STORAGE_REPLY_COMPRESSION",
        "always",
        parsers.compression,
        "Compression of the states in replies: `always`, `never`, or up to a size of the content, as `100KiB`.",
    )
    clock_skew: float = _setting(
        "STORAGE_CLOCK_SKEW", 30.0, parsers.seconds(0, 300), "Seconds granted on `exp` and `nbf`."
    )
    replay: str = _setting(
        "STORAGE_REPLAY",
        "enforce",
        parsers.choice("enforce", "observe", "off"),
        "A `jti` used again for another change: `enforce` refuses it, `observe` logs it, `off` does not look.",
    )
    store_timeout: float = _setting(
        "STORAGE_STORE_TIMEOUT",
        10.0,
        parsers.seconds(0.1, 300),
        "Seconds to wait for a store that is locked or does not answer before 503 is answered.",
    )
    pool_size: int = _setting(
        "STORAGE_POOL_SIZE",
        8,
        parsers.whole(1, 256),
        "Connections to a database server that each process holds at most; as many as threads, so that none waits.",
    )
    read_timeout: float = _setting(
        "STORAGE_READ_TIMEOUT",
        30.0,
        parsers.seconds(1, 600),
        "Seconds in which a request, headers and body, must have arrived.",
    )
    graceful_timeout: int = _setting(
        "STORAGE_GRACEFUL_TIMEOUT",
        30,
        parsers.whole(1, 3600),
        "Seconds that running requests get to finish after SIGTERM.",
    )
    drain: float = _setting(
        "STORAGE_DRAIN",
        0.0,
        parsers.seconds(0, 3600),
        "Seconds after SIGTERM in which `/readyz` fails and all is still answered, so that balancers look elsewhere.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "STORAGE_TRUSTED_PROXIES",
        (),
        parsers.addresses,
        "Addresses or networks, separated by commas, whose `X-Forwarded-For` and `X-Request-ID` are believed.",
    )
    tenants: frozenset[str] = _setting(
        "STORAGE_TENANTS",
        frozenset(),
        parsers.uuids,
        "UUIDs of the only tenants served, separated by commas; others get 401. Any tenant that has keys, if empty.",
    )
    region: str = _setting(
        "STORAGE_REGION", "", parsers.label, "Where the store of `DATABASE_URL` stands, for `receiver store residency`."
    )
    log_level: str = _setting(
        "STORAGE_LOG_LEVEL",
        "info",
        parsers.choice("debug", "info", "warning", "error"),
        "Least severity that is logged.",
    )
    log_format: str = _setting(
        "STORAGE_LOG_FORMAT",
        "auto",
        parsers.choice("auto", "text", "json"),
        "Lines of the log: `text` for people, `json` for programs; `auto` is text on a terminal, else JSON.",
    )
    admin_bind: str = _setting(
        "STORAGE_ADMIN_BIND",
        "127.0.0.1:8081",
        parsers.bind_or_off,
        "Address of `/livez`, `/readyz` and `/metrics`, without TLS and for whoever can reach it; `off` for none.",
    )
    min_free: int = _setting(
        "STORAGE_MIN_FREE",
        64 << 20,
        parsers.size(0, 1 << 50),
        "Room that the disk of SQLite or files must have for `/readyz` to say ready; 0 does not look.",
    )
    tally_every: float = _setting(
        "STORAGE_TALLY_EVERY",
        300.0,
        parsers.seconds(0, 86400),
        "Seconds between two counts of the states of each tenant for `/metrics`; 0 never counts.",
    )
    run_dir: str = _setting(
        "STORAGE_RUN_DIR",
        "",
        parsers.run_dir,
        "Where a running receiver keeps what ends with it, such as its metrics; `RUNTIME_DIRECTORY`, else `/dev/shm`,"
        " else the folder for temporary files, if empty.",
    )
    key_texts: Mapping[str, Secret] = dataclasses.field(default_factory=dict, repr=False)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    paths: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    credentials: Path | None = None
    tenant_stores: Mapping[str, TenantStore] = dataclasses.field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)


def declared() -> list[dataclasses.Field[Any]]:
    """Return the declared settings in the order of the table; each ``metadata`` has name, parse, help and secret."""
    return [field for field in dataclasses.fields(Settings) if field.metadata]
