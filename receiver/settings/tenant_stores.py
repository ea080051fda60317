"""Tenants that have a store of their own: STORAGE_TENANT_<uuid>, STORAGE_REGION_… and STORAGE_STORE_ID_…."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from receiver.jose.key_texts import oddity
from receiver.settings import parsers
from receiver.settings.key_sources import kid_in_name
from receiver.stores.urls import store_url
from receiver.stores.urls.store_url import StoreURL

TENANT_NAME = re.compile(r"STORAGE_(TENANT|REGION|STORE_ID)_(.*)")
_COMMAND = re.compile("`receiver store (accept|init)`")


@dataclass(frozen=True, slots=True)
class TenantStore:
    """A tenant's own store: ``variable`` named its ``url``; ``region`` is a label for people.

    ``store_id`` is the id of the only store that is accepted there; any, if empty.
    """

    variable: str
    url: StoreURL
    region: str = ""
    store_id: str = ""

    def mistake(self, cause: str) -> str:
        """Return ``cause`` as a mistake in ``variable``, with the commands in it for this tenant's store."""
        if tenant := tenant_in(self.variable.removesuffix("_FILE")):
            cause = _COMMAND.sub(rf"`receiver store \1 --tenant {tenant}`", cause)
        return f"{self.variable}: {cause}"


def tenant_in(name: str) -> str | None:
    """Return the tenant in the ``name`` of a variable, in lower case; None if it names none."""
    match = TENANT_NAME.fullmatch(name)
    return kid_in_name(match.group(2), whole=True) if match else None


def parse_tenant_stores(given: Mapping[str, tuple[str, str]]) -> tuple[dict[str, TenantStore], list[str]]:
    """Return tenant → TenantStore of ``given``, name → (value, its variable), and the mistakes in it.

    Each name is one in which ``tenant_in`` finds a tenant.
    """
    found: dict[str, TenantStore] = {}
    mistaken: set[str] = set()
    mistakes: list[str] = []
    for name, (value, source) in sorted(given.items(), key=lambda one: not one[0].startswith("STORAGE_TENANT_")):
        tenant = tenant_in(name) or ""
        try:
            if name.startswith("STORAGE_TENANT_") and tenant not in found:
                found[tenant] = TenantStore(source, store_url.parse(value))
            elif name.startswith("STORAGE_REGION_") and tenant in found:
                found[tenant] = dataclasses.replace(found[tenant], region=parsers.label(value))
            elif name.startswith("STORAGE_STORE_ID_") and tenant in found:
                found[tenant] = dataclasses.replace(found[tenant], store_id=parsers.uuid(value))
            elif tenant not in mistaken:
                raise ValueError("names a tenant that no STORAGE_TENANT_… does, or that another one does as well")
        except ValueError as cause:
            mistaken.add(tenant)
            mistakes.append(f"{source}: {cause}{oddity(value)}")
    return found, mistakes
