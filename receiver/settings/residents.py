"""Tenants that have a store of their own: STORAGE_TENANT_<uuid> and STORAGE_REGION_<uuid>."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

from receiver.keysources import kid_in_name
from receiver.keytexts import oddity
from receiver.settings import options
from receiver.stores import urls
from receiver.stores.urls import Place

TENANT_NAME = re.compile(r"STORAGE_(TENANT|REGION)_(.*)")


@dataclass(frozen=True, slots=True)
class Resident:
    """A store of a tenant's own: ``variable`` named its ``place``; ``region`` is a label for people."""

    variable: str
    place: Place
    region: str = ""


def tenant_in(name: str) -> str | None:
    """Return the tenant that a variable called ``name`` is about, in lower case; None when it is about none."""
    match = TENANT_NAME.fullmatch(name)
    return kid_in_name(match.group(2), whole=True) if match else None


def residents(given: Mapping[str, tuple[str, str]]) -> tuple[dict[str, Resident], list[str]]:
    """Return tenant → Resident of what is ``given``, name → (value, variable it came from), and the mistakes in it."""
    found: dict[str, Resident] = {}
    mistaken, mistakes = set(), []
    for name, (value, source) in sorted(given.items(), key=lambda one: "REGION" in one[0]):
        tenant = tenant_in(name)
        try:
            if name.startswith("STORAGE_TENANT_") and tenant not in found:
                found[tenant] = Resident(source, urls.parse(value))
            elif name.startswith("STORAGE_REGION_") and tenant in found:
                found[tenant] = dataclasses.replace(found[tenant], region=options.label(value))
            elif tenant not in mistaken:
                raise ValueError("names a tenant that no STORAGE_TENANT_… does, or that another one does as well")
        except ValueError as cause:
            mistaken.add(tenant)
            mistakes.append(f"{source}: {cause}{oddity(value)}")
    return found, mistakes
