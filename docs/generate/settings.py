"""The settings, a table for each subject, from the declared ones."""

from docs.generate.markdown import exactly, table
from docs.generate.sources import declared_settings, shown_as

SUBJECTS = {
    "Store": (
        *("DATABASE_URL", "JDBC_DATABASE_URL", "DATABASE_USERNAME", "DATABASE_PASSWORD", "STORAGE_STORE_TIMEOUT"),
        *("STORAGE_STORE_ID", "STORAGE_POOL_SIZE", "STORAGE_MIN_FREE"),
    ),
    "Tenants and regions": ("STORAGE_TENANTS", "STORAGE_REGION"),
    "Keys": ("STORAGE_KEYS", "STORAGE_KEY_PASSPHRASE", "STORAGE_INSECURE_KEYS"),
    "Sealing at rest": ("STORAGE_SEALING_KEY", "STORAGE_CLEAR_STATES"),
    "Address, TLS and proxies": (
        *("PORT", "STORAGE_BIND", "STORAGE_TLS_CERT", "STORAGE_TLS_KEY", "STORAGE_TLS_CLIENT_CA", "STORAGE_ALLOW_FROM"),
        *("STORAGE_TRUSTED_PROXIES", "STORAGE_PUBLIC_PREFIX", "STORAGE_KEEP_ALIVE"),
    ),
    "Requests and replies": (
        *("STORAGE_MAX_BODY", "STORAGE_MAX_ITEMS", "STORAGE_MAX_INFLATED", "STORAGE_MAX_HEADER"),
        *("STORAGE_READ_TIMEOUT", "STORAGE_REPLY_COMPRESSION", "STORAGE_CLOCK_SKEW", "STORAGE_REPLAY"),
    ),
    "Processes": (
        *("STORAGE_WORKERS", "STORAGE_THREADS", "STORAGE_DRAIN", "STORAGE_GRACEFUL_TIMEOUT", "STORAGE_RUN_DIR"),
    ),
    "Log, probes and metrics": (
        *("STORAGE_LOG_LEVEL", "STORAGE_LOG_FORMAT", "STORAGE_ADMIN_BIND", "STORAGE_TALLY_EVERY"),
    ),
}


def tables() -> str:
    """Return a section with a table for each subject; raises LookupError when a setting has no subject."""
    fields = {field.metadata["name"]: field for field in declared_settings.declared()}
    exactly({name: subject for subject, names in SUBJECTS.items() for name in names}, fields, "SUBJECTS of settings")
    sections = (f"### {subject}\n\n{_table(map(fields.get, names))}" for subject, names in SUBJECTS.items())
    return "\n\n".join(sections)


def _table(fields) -> str:
    return table(("variable", "default", "meaning"), ([*_cells(field)] for field in fields))


def _cells(field) -> tuple[str, str, str]:
    default = shown_as(field.default.text if field.metadata["secret"] else field.default)
    return f"`{field.metadata['name']}`", f"`{default}`" if default else "", field.metadata["help"]
