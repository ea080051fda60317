"""``receiver keys sealing``: make a key that seals content at rest."""

import json
import os
import time
from pathlib import Path

import click

from receiver import keyring, settings
from receiver.sealing import generate
from receiver.stores.filesystem.durable import make_folder, sync_folder, write_file


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), help="Where to; STORAGE_KEYS, or keys, by default.")
@click.option("--if-none", is_flag=True, help="Do nothing when there is a sealing key already.")
def sealing(directory: Path | None, if_none: bool) -> None:
    """Make a sealing key, sealing-<kid>.json. The newest one seals, so this is also the first step of a rotation.

    Every receiver on the store needs it before the first content is sealed with it. Keep a copy apart from the
    backups of the store: without the key they cannot be read by anybody.
    """
    declared, _ = settings.read(os.environ)
    ring, mistakes = keyring.load_sealing(declared)
    newest = ring.sealing.newest
    if if_none and (newest or mistakes):
        return
    folder = directory or declared.keys
    # After the newest one there is, whatever the clock says.
    made = generate(max(time.time(), newest.issued + 1 if newest else 0))
    path = folder / f"sealing-{made['kid']}.json"
    try:
        make_folder(str(folder))
        write_file(str(path), json.dumps(made, indent=1).encode("ascii"), b"\n")
        sync_folder(str(folder))
    except OSError as cause:
        raise click.ClickException(f"{cause.filename}: {cause.strerror}") from None
    click.echo(f"wrote {path}")
