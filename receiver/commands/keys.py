"""``receiver keys``: make, list and check platform and receiver keys."""

import os
from pathlib import Path

import click
from tabulate import tabulate

from receiver import app, keyring, settings
from receiver.commands.keys_sealing import sealing
from receiver.jose import canonical_uuid
from receiver.keyring import Keyring
from receiver.mock_platform import keyfiles
from receiver.mock_platform.keys import new_store


@click.group()
def keys() -> None:
    """Make, list and check the platform and receiver keys."""


keys.add_command(sealing)


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
    try:
        for path in keyfiles.write(folder, new_store()):
            click.echo(f"wrote {path}")
    except OSError as cause:
        raise click.ClickException(f"{cause.filename}: {cause.strerror}") from None


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
