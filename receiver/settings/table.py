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

from receiver.protocol import CLOCK_SKEW
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
        "URL of the store. A `jdbc:` URL of the Java service works as well.",
        secret=True,
    )
    jdbc_database_url: Secret = _setting(
        "JDBC_DATABASE_URL", "", parsers.database_url, "Read when `DATABASE_URL` is not set.", secret=True
    )
    database_username: str = _setting(
        "DATABASE_USERNAME", "", parsers.login, "User for the database server if the URL names none."
    )
    database_password: Secret = _setting(
        "DATABASE_PASSWORD",
        "",
        parsers.login,
        "Password for the database server if the URL names none; nothing in it needs escaping.",
        secret=True,
    )
    port: int = _setting(
        "PORT",
        0,
        parsers.whole(0, 65535),
        "Port to listen on at all addresses, IPv6 and IPv4, as the Java service does. `STORAGE_BIND` takes precedence.",
    )
    bind: str = _setting(
        "STORAGE_BIND",
        "127.0.0.1:8080",
        parsers.bind,
        "Address to listen on: `host:port`, `[ipv6]:port` or `unix:/path`. Port 0 picks a free one.",
    )
    workers: int = _setting(
        "STORAGE_WORKERS",
        2,
        parsers.whole(1, 256),
        "Processes that answer requests; one for each processor answers most requests.",
    )
    threads: int = _setting(
        "STORAGE_THREADS",
        8,
        parsers.whole(1, 256),
        "Threads in each of these processes: how many requests may wait for a store or a slow client at once."
        " More threads do not compute faster.",
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
        "Key that seals content at rest, made by `receiver keys sealing`: a JWK, or a JWK set."
        " Sealing keys in `STORAGE_KEYS` count as well; the newest one seals, all of them open.",
        secret=True,
    )
    clear_states: str = _setting(
        "STORAGE_CLEAR_STATES",
        "refuse",
        parsers.choice("refuse", "read", "write"),
        "What to do with content in the clear if there is a sealing key: `refuse` it; `read` it until `receiver store"
        " reseal` is done; or also `write` it, so that `receiver store reseal --open` can unseal everything.",
    )
    key_passphrase: Secret = _setting(
        "STORAGE_KEY_PASSPHRASE",
        "",
        parsers.text,
        "Passphrase of the keys that `receiver keys protect` protects.",
        secret=True,
    )
    insecure_keys: str = _setting(
        "STORAGE_INSECURE_KEYS",
        "refuse",
        parsers.choice("refuse", "warn"),
        "What to do about a private key file that everybody on the machine may use: `refuse` to start, or only `warn`.",
    )
    tls_cert: str = _setting(
        "STORAGE_TLS_CERT",
        "",
        parsers.file,
        "PEM file with the certificate and its chain. The receiver then accepts only TLS (1.2 or newer).",
    )
    tls_key: str = _setting(
        "STORAGE_TLS_KEY",
        "",
        parsers.file,
        "PEM file with the certificate's private key. Both files are reloaded when they change.",
    )
    tls_client_ca: str = _setting(
        "STORAGE_TLS_CLIENT_CA",
        "",
        parsers.file,
        "PEM file of certificate authorities. Only clients with a certificate from one of them are served.",
    )
    allow_from: tuple[str, ...] = _setting(
        "STORAGE_ALLOW_FROM",
        (),
        parsers.addresses,
        "Addresses or networks, separated by commas, of the only clients that are served; behind a trusted proxy, the"
        " client that it names counts. Trusted proxies themselves may call health. All clients, if empty.",
    )
    public_prefix: str = _setting(
        "STORAGE_PUBLIC_PREFIX",
        "",
        parsers.prefix,
        "Prefix of the path that the platform calls and signs, such as `/flow`, even if a proxy strips it.",
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
        "Seconds until an idle connection is closed. A proxy in front should close its own sooner (see deploy/proxy).",
    )
    max_items: int = _setting(
        "STORAGE_MAX_ITEMS", 1000, parsers.whole(1, 1_000_000), "Most states or ids in one request."
    )
    max_body: int = _setting(
        "STORAGE_MAX_BODY", 32 << 20, parsers.size(1 << 10, 1 << 30), "Largest request body, in bytes, `KiB` or `MiB`."
    )
    max_inflated: int = _setting(
        "STORAGE_MAX_INFLATED",
        64 << 20,
        parsers.size(1 << 10, 1 << 30),
        "Largest total size that the compressed states of one request may inflate to.",
    )
    reply_compression: str | int = _setting(
        "STORAGE_REPLY_COMPRESSION",
        "always",
        parsers.compression,
        "Compression of the states in replies: `always`, `never`, or up to a size of the content, such as `100KiB`.",
    )
    clock_skew: float = _setting(
        "STORAGE_CLOCK_SKEW", CLOCK_SKEW, parsers.seconds(0, 300), "Seconds of clock skew to grant on `exp` and `nbf`."
    )
    replay: str = _setting(
        "STORAGE_REPLAY",
        "enforce",
        parsers.choice("enforce", "observe", "off"),
        "A `jti` used again for another change: `enforce` refuses it, `observe` logs it, `off` does not check.",
    )
    store_timeout: float = _setting(
        "STORAGE_STORE_TIMEOUT",
        10.0,
        parsers.seconds(0.1, 300),
        "Seconds to wait for a store that is locked or does not answer, before the reply is 503.",
    )
    pool_size: int = _setting(
        "STORAGE_POOL_SIZE",
        8,
        parsers.whole(1, 256),
        "Most connections to a database server in each process. With as many as threads, no thread waits for one.",
    )
    read_timeout: float = _setting(
        "STORAGE_READ_TIMEOUT",
        30.0,
        parsers.seconds(1, 600),
        "Seconds within which a request, headers and body, must arrive.",
    )
    graceful_timeout: int = _setting(
        "STORAGE_GRACEFUL_TIMEOUT",
        30,
        parsers.whole(1, 3600),
        "Seconds that running requests have to finish after SIGTERM.",
    )
    drain: float = _setting(
        "STORAGE_DRAIN",
        0.0,
        parsers.seconds(0, 3600),
        "Seconds after SIGTERM in which `/readyz` fails but requests are still served, so that balancers go elsewhere.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        "STORAGE_TRUSTED_PROXIES",
        (),
        parsers.addresses,
        "Addresses or networks, separated by commas, of proxies whose `X-Forwarded-For` and `X-Request-ID` count.",
    )
    tenants: frozenset[str] = _setting(
        "STORAGE_TENANTS",
        frozenset(),
        parsers.uuids,
        "UUIDs of the only tenants served, separated by commas; others get 401. Every tenant that has keys, if empty.",
    )
    region: str = _setting(
        "STORAGE_REGION", "", parsers.label, "Location of the store of `DATABASE_URL`, for `receiver store residency`."
    )
    store_id: str = _setting(
        "STORAGE_STORE_ID",
        "",
        parsers.uuid,
        "UUID of the store of `DATABASE_URL`, as `receiver store id` prints it. An empty or another store is refused;"
        " only `receiver store init` then makes a new one. Any store, if empty.",
    )
    log_level: str = _setting(
        "STORAGE_LOG_LEVEL",
        "info",
        parsers.choice("debug", "info", "warning", "error"),
        "Lowest severity to log.",
    )
    log_format: str = _setting(
        "STORAGE_LOG_FORMAT",
        "auto",
        parsers.choice("auto", "text", "json"),
        "Format of the log: `text` for people, `json` for programs; `auto` is text on a terminal, else JSON.",
    )
    admin_bind: str = _setting(
        "STORAGE_ADMIN_BIND",
        "127.0.0.1:8081",
        parsers.bind_or_off,
        "Address of `/livez`, `/readyz` and `/metrics`, without TLS or authentication; `off` for none.",
    )
    min_free: int = _setting(
        "STORAGE_MIN_FREE",
        64 << 20,
        parsers.size(0, 1 << 50),
        "Free space that the disk of an SQLite or file store needs for `/readyz` to report ready; 0 does not check.",
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
        "Folder for what a running receiver keeps only while it runs, such as its metrics; if empty,"
        " `RUNTIME_DIRECTORY`, else `/dev/shm`, else the folder for temporary files.",
    )
    key_texts: Mapping[str, Secret] = dataclasses.field(default_factory=dict, repr=False)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    paths: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    credentials: Path | None = None
    tenant_stores: Mapping[str, TenantStore] = dataclasses.field(default_factory=dict, repr=False)
    warnings: tuple[str, ...] = dataclasses.field(default=(), repr=False, compare=False)


# What a reload takes besides the keys in STORAGE_KEYS; any other setting takes effect with a restart.
RELOADED = frozenset({"STORAGE_SEALING_KEY", "STORAGE_KEY_PASSPHRASE"})


def declared() -> list[dataclasses.Field[Any]]:
    """Return the declared settings in the order of the table; each ``metadata`` has name, parse, help and secret."""
    return [field for field in dataclasses.fields(Settings) if field.metadata]
