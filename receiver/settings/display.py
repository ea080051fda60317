"""The settings in force as people see them: each value and where it came from, secrets masked."""

import os
from pathlib import Path

from receiver.settings import parsers
from receiver.settings.table import Settings, declared
from receiver.stores.urls import store_url

DEFAULT = "default"


def shown_rows(in_force: Settings) -> list[tuple[str, str, str]]:
    """Return (name, value, source) of each setting ``in_force``, then of tenants' stores and of keys."""
    rows: list[tuple[str, str, str]] = []
    for field in declared():
        value = getattr(in_force, field.name)
        shown = shown_as(value)
        if field.metadata["parse"] is parsers.database_url and value:
            shown = store_url.masked(value.text)
        source = in_force.sources.get(field.name, DEFAULT)
        if field.name == "database_url" and in_force.store_url_text != value.text:
            shown, source = "", f"{in_force.store_variable} decides"
        if field.name == "bind" and in_force.listen != value:
            shown, source = in_force.listen, in_force.sources["port"]
        rows.append((field.metadata["name"], shown, source))
    tenant_stores = in_force.tenant_stores.items()
    rows += [
        (f"STORAGE_TENANT_{tenant}", str(tenant_store.url), tenant_store.variable)
        for tenant, tenant_store in tenant_stores
    ]
    rows += [(f"STORAGE_REGION_{tenant}", one.region, "") for tenant, one in tenant_stores if one.region]
    rows += [(f"STORAGE_STORE_ID_{tenant}", one.store_id, "") for tenant, one in tenant_stores if one.store_id]
    rows += [(name, str(text), name) for name, text in in_force.key_texts.items()]
    return rows


def shown_as(value: object) -> str:
    """Return ``value``, of a setting, as it would be written in the environment."""
    if isinstance(value, (tuple, frozenset)):
        return ",".join(sorted(value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20}MiB"
    return "" if value in (0, "") else os.fspath(value) if isinstance(value, Path) else str(value)
