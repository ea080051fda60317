"""``receiver keys``: make, list and check platform and receiver keys."""

import json
import os
from pathlib import Path

import click
from tabulate import tabulate

from receiver import app, keyring, settings
from receiver.jose import canonical_uuid
from receiver.keyring import Keyring
from receiver.mock_platform.keys import new_store

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


@click.group()
def keys() -> None:
    """Make, list and check the platform and receiver keys."""


@keys.command()
@click.option("--directory", type=click.Path(path_type=Path), help="Where to; STORAGE_KEYS, or keys, by default.")
@click.option("--tenant", help="UUID of the one tenant that the keys serve; any tenant otherwise.")
@click.option("--if-none", is_flag=True, help="Do nothing when the directory or the environment holds keys.")
def generate(directory: Path | None, tenant: str | None, if_none: bool) -> None:
    """Make both key pairs, as the platform does when a store is registered there.

    Writes platform-<kid>.json (public) and receiver-<kid>.json (private) for the receiver, and
    mock-platform-<kid>.json, the platform's private half, for the mock platform. With real keys the
    platform alone holds that one. Never overwrites a file.
    """
    if tenant is not None and canonical_uuid(tenant) is None:
        raise click.BadParameter("must be a UUID", param_hint="--tenant")
    declared, _ = settings.read(os.environ)
    directory = directory or declared.keys
    folder = directory / canonical_uuid(tenant) if tenant else directory
    if if_none and not keyring.is_empty(declared.key_texts, directory):
        return
    made = new_store()
    files = {
        f"platform-{made.platform.kid}.json": made.platform.public(),
        f"receiver-{made.receiver.kid}.json": made.receiver.private(),
        f"mock-platform-{made.platform.kid}.json": made.platform.private(),
    }
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        for name, members in files.items():
            _write_new(folder / name, members)
            click.echo(f"wrote {folder / name}")
    except OSError as cause:
        raise click.ClickException(f"{cause.filename}: {cause.strerror}") from None


def _write_new(path: Path, members: dict) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "w") as file:
        json.dump(members, file, indent=2)
        file.write("\n")


@keys.command("list")
def list_keys() -> None:
    """List the keys in force: role, kid, tenants, RFC 7638 thumbprint and where they came from."""
    click.echo(key_table(app.configure()[1]))


def key_table(ring: Keyring) -> str:
    """Return the table of the keys in ``ring``; it holds no key material."""
    rows = [
        (
            key.role,
            key.kid,
            ",".join(sorted(key.tenants)) if key.tenants else "any",
            key.thumbprint,
            key.source,
        )
        for key in ring
    ]
    return tabulate(sorted(rows), headers=("role", "kid", "tenant", "thumbprint", "from"), tablefmt="plain")


@keys.command()
def check() -> None:
    """Check the keys of the environment and the directory; name everything that is wrong with them."""
    _, ring = app.configure()
    for key in ring:
        path = Path(key.source)
        if path.is_file() and path.stat().st_mode & 0o077:
            click.echo(f"warning: {path} can be read by others; chmod 600 {path}", err=True)
    click.echo(key_table(ring))
