"""Environment → Settings, or all mistakes in it at once."""

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from receiver import files
from receiver.jose.key_texts import BYTE_ORDER_MARK, oddity
from receiver.secret import Secret
from receiver.settings import near_misses
from receiver.settings.key_sources import kid_in_name
from receiver.settings.table import Settings, declared
from receiver.settings.tenant_stores import TENANT_NAME, parse_tenant_stores, tenant_in

_KEY_NAME = re.compile(r"(?:PLATFORM|RECEIVER)_KEY(?:_(.*))?")
# What a pod gets for a service, https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES = re.compile(r"STORAGE_(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)")
_SERVICE_URL = re.compile(r"(?:tcp|udp|sctp)://[\d.:\[\]a-f]+:\d+$")


class SettingsMistakes(Exception):
    """The settings do not allow a start; each line of ``mistakes`` names a variable and says what is valid."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))


def read(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the Settings of ``environ`` and all mistakes in it; a setting with a mistake keeps its default.

    A systemd credential with the name of a variable counts as ``NAME_FILE``. A name that is nearly that of a setting is
    a mistake too, or one of the Settings' warnings.
    """
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    environ = _credentials(credentials) | dict(environ) if credentials else environ
    given, mistakes = _given(environ)
    names = frozenset(given)
    paths = {source: environ[source] for name, (_, source) in given.items() if source != name}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for field in declared():
        name = field.metadata["name"]
        if name not in given:
            continue
        value, source = given.pop(name)
        try:
            parsed = field.metadata["parse"](value)
            values[field.name] = Secret(parsed) if field.metadata["secret"] else parsed
        except ValueError as cause:
            # A parser's message says what is valid and never repeats the value: it may be a secret.
            mistakes.append(f"{source}: {cause}{oddity(value)}")
        sources[field.name] = source
    of_tenants = {name: given.pop(name) for name in list(given) if tenant_in(name)}
    values["tenant_stores"], more = parse_tenant_stores(of_tenants)
    values["key_texts"] = {source: Secret(value) for value, source in given.values()}
    values["credentials"] = Path(credentials) if credentials else None
    settings = Settings(**values, sources=sources, paths=paths)
    if any(len(ids) > 1 for ids in settings.store_ids.values()):
        more.append("STORAGE_STORE_ID: tenants that share a store name several ids for it")
    missed, warnings = near_misses.judge(environ, settings, names)
    return dataclasses.replace(settings, warnings=tuple(warnings)), mistakes + more + missed


def _credentials(directory: str) -> dict[str, str]:
    """Return NAME_FILE → path of what systemd's LoadCredential= put into ``directory`` under the name of a variable.

    Also returns other names, because one may be nearly that of a variable; but no unknown STORAGE_… name, which would
    stop the start.
    """
    try:
        names = os.listdir(directory)
    except OSError:
        return {}
    known = {field.metadata["name"] for field in declared()}
    names = [name for name in names if name in known or _is_key(name) or not _concerns(name)]
    return {f"{name}_FILE": os.path.join(directory, name) for name in names}


def _concerns(name: str) -> bool:
    return name.startswith("STORAGE_") or _KEY_NAME.fullmatch(name) is not None


def _is_key(name: str) -> bool:
    match = _KEY_NAME.fullmatch(name)
    return match is not None and (match.group(1) is None or kid_in_name(match.group(1), whole=True) is not None)


def _given(environ: Mapping[str, str]) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return name → (value, variable it came from) of all variables that concern the receiver, and the mistakes."""
    known = {field.metadata["name"] for field in declared()}
    given: dict[str, tuple[str, str]] = {}
    mistakes = []
    for variable, raw in sorted(environ.items()):
        name, from_file = variable, False
        if variable.endswith("_FILE") and variable not in known:
            name, from_file = variable.removesuffix("_FILE"), True
        concerns = name in known or _concerns(variable)
        if not concerns or not raw:  # Compose writes an unset variable as an empty one
            continue
        if name not in known and not _is_key(name) and not tenant_in(name):
            mistakes.append(_unknown(variable, raw))
            continue
        if name in given:
            mistakes.append(f"{variable}: {given[name][1]} is set as well; only one of them is valid")
            continue
        try:
            value = files.read_text(raw).rstrip("\r\n") if from_file else raw.removeprefix(BYTE_ORDER_MARK)
        except ValueError as cause:
            mistakes.append(f"{variable}: the file it names {cause}{oddity(raw)}")
            continue
        given[name] = (value, variable)
    return given, mistakes


def _unknown(variable: str, value: str) -> str:
    if _OF_KUBERNETES.fullmatch(variable) or _SERVICE_URL.match(value):
        return (
            f"{variable}: Kubernetes sets it in every pod beside a service of that name: set enableServiceLinks: false"
            " in the pod's spec, or give that service another name"
        )
    if _KEY_NAME.fullmatch(variable):
        return f"{variable}: must end in the key's kid, a UUID (underscores may stand for its hyphens)"
    if TENANT_NAME.fullmatch(variable):
        return f"{variable}: must end in a tenant's UUID (underscores may stand for its hyphens)"
    names = [field.metadata["name"] for field in declared()]
    nearest = difflib.get_close_matches(variable, names, n=1, cutoff=0)[0]
    return f"{variable}: there is no such setting; the nearest is {nearest}"
