"""``receiver keys``: makes, lists, checks and protects platform and receiver keys."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from receiver import bootstrap, files, settings
from receiver.commands.keys_sealing import sealing
from receiver.commands.tables import fitted
from receiver.conformance.printable import visible
from receiver.encoding import canonical_uuid
from receiver.keys import keyring, passphrase
from receiver.keys.keyring import KeyFault, Keyring
from receiver.keys.listing import ago, key_rows
from receiver.keys.usage import Uses
from receiver.mock_platform import keyfiles
from receiver.mock_platform.keys import new_store
from receiver.problems import Problem
from receiver.settings import Settings, SettingsMistakes
from receiver.telemetry import logs

_PATIENCE = 2.0  # seconds to wait for a store that only knows when keys were used


@click.group()
def keys() -> None:
    """Make, list and check the platform and receiver keys."""


keys.add_command(sealing)


@keys.command()
@click.option("--directory", type=click.Path(path_type=Path), help="Where to write them; STORAGE_KEYS by default.")
@click.option("--tenant", help="UUID of the only tenant that the keys serve; by default they serve any tenant.")
@click.option("--if-none", is_flag=True, help="Do nothing if the directory or the environment holds keys.")
def generate(directory: Path | None, tenant: str | None, if_none: bool) -> None:
    """Make both key pairs, as the platform does when it registers a store.

    Writes platform-<kid>.json (public) and receiver-<kid>.json (private) for the receiver, and
    mock-platform-<kid>.json, the platform's private half, for the mock platform. With real keys, only the
    platform holds that half. Never overwrites a file.
    """
    only = canonical_uuid(tenant) if tenant else None
    if tenant is not None and only is None:
        raise click.BadParameter("must be a UUID", param_hint="--tenant")
    declared, _ = settings.read(os.environ)
    directory = directory or declared.keys
    folder = directory / only if only else directory
    if if_none and not keyring.is_empty(declared.key_texts, directory):
        return
    try:
        for path in keyfiles.write(folder, new_store()):
            click.echo(f"wrote {path}")
    except OSError as cause:
        raise click.ClickException(f"{cause.filename}: {cause.strerror}") from None


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@keys.command("list")
@_as_json
def list_keys(as_json: bool) -> None:
    """List the keys in force: role, tenants, age and last use, RFC 7638 thumbprint and where they came from."""
    declared, ring = bootstrap.configure()
    click.echo(shown(ring, as_json, _uses_in(declared, ring)))


@keys.command()
@_as_json
def check(as_json: bool) -> None:
    """Check the keys of the environment and the directory; list everything that is wrong with them."""
    ring = bootstrap.configure()[1]
    for line in ring.exposed:
        click.echo(f"warning: {line}", err=True)
    click.echo(shown(ring, as_json))


def _uses_in(declared: Settings, ring: Keyring) -> Uses | None:
    """Return when each key was used, as the store records it; None, with a message, if the store does not answer."""
    hurried = replace(declared, store_timeout=min(declared.store_timeout, _PATIENCE))
    try:
        with contextlib.closing(bootstrap.open_configured(hurried, ring, lambda _place: False)) as store:
            return store.key_uses()
    except Problem as cause:
        click.echo(f"the times of last use are not known now: {logs.escape(str(cause))}", err=True)
        return None


def shown(ring: Keyring, as_json: bool, uses: Uses | None = None) -> str:
    """Return the keys of ``ring`` as JSON, or as a table; ``uses`` as for ``key_table``."""
    return json.dumps(key_rows(ring, uses, _iso), indent=1) if as_json else key_table(ring, uses)


def key_table(ring: Keyring, uses: Uses | None = None, now: float | None = None, width: int | None = None) -> str:
    """Return the table of the keys in ``ring``, or a block for each if ``width`` characters are too few for that.

    Ages are reckoned to ``now`` (seconds since the epoch); the width is that of the terminal by default.

    ``uses`` tells when each was used last, by role and kid, in seconds since the epoch; without it there is no such
    column. It holds no key material.
    """
    since = time.time() if now is None else now
    headers = {"tenants": "tenant", "madeAt": "age", "lastUsedAt": "last used"}
    rows = [
        {headers.get(name, name): value for name, value in row.items()}
        | {
            "from": visible(row["from"]),
            "tenant": ",".join(row["tenants"] or ["any"]),
            "protected": "yes" if row["protected"] else "no",
        }
        for row in key_rows(ring, uses, lambda moment: ago(moment, since))
    ]
    return fitted(rows, width)


def _iso(moment: int | None) -> str | None:
    return None if moment is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


_files = click.argument("paths", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))


@keys.command()
@_files
def protect(paths: tuple[Path, ...]) -> None:
    """Protect private keys by a passphrase, each in its file: by STORAGE_KEY_PASSPHRASE, or one that you type.

    The receiver needs the same passphrase in STORAGE_KEY_PASSPHRASE or STORAGE_KEY_PASSPHRASE_FILE. The disk or a
    backup may still hold the unprotected key: if a key was exposed, ask the platform for another one.
    """
    _rewrite(paths, passphrase.protect, "protected", asks_twice=True)


@keys.command()
@_files
def unprotect(paths: tuple[Path, ...]) -> None:
    """Remove the passphrase from key files, for example to set another one."""

    def opened(text: str, phrase: str) -> str:
        if not passphrase.is_protected(text):
            raise KeyFault("is not protected")
        return passphrase.open_text(text, phrase)

    _rewrite(paths, opened, "opened", asks_twice=False)


def _rewrite(paths: tuple[Path, ...], change: Callable[[str, str], str], done: str, asks_twice: bool) -> None:
    """Replace the text of each file by ``change`` of it and the passphrase; replaces none if one of them fails."""
    declared, mistakes = settings.read(os.environ)
    phrase = declared.key_passphrase.text
    if not phrase and any(mistake.startswith("STORAGE_KEY_PASSPHRASE") for mistake in mistakes):
        raise SettingsMistakes(mistakes)
    while not phrase:
        phrase = click.prompt("Passphrase", hide_input=True, confirmation_prompt=asks_twice, err=True)
    changed = {}
    for path in paths:
        try:
            changed[path] = change(files.read_text(path), phrase)
        except ValueError as fault:  # KeyFault as well
            raise click.ClickException(f"{path}: {fault}") from None
    for path, text in changed.items():
        try:
            files.replace_text(path, text)
        except OSError as cause:
            raise click.ClickException(f"{path}: {cause.strerror}") from None
        click.echo(f"{done} {path}")
