"""``receiver keys sealing``: makes a key that seals content at rest."""

import json
import os
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import click

from receiver import bootstrap, settings
from receiver.keys import keyring
from receiver.problems import Problem
from receiver.sealing import generate
from receiver.stores.filesystem.durable import make_folder, sync_folder, write_file

_DELAY = 300  # seconds in which to bring a key to every receiver
_PATIENCE = 3.0  # seconds to wait for a store
_STEPS = """\
{stores}: the store holds states in the clear, so a running receiver does not accept this key yet. Without an outage:
  1. Set STORAGE_CLEAR_STATES=read for every receiver on the store, and restart them one after the other.
  2. Add {file} to the keys of every receiver before {moment}: from then on it seals.
  3. After that, run `receiver store reseal` with the same settings until its exit status is 0.
  4. Remove STORAGE_CLEAR_STATES, and restart the receivers one after the other."""
_AT_ONCE = """\
{stores}: the store holds states in the clear. While every receiver on it is stopped, run:
  receiver store reseal --stopped
Then add {file} to the keys of every receiver, and start them."""


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), help="Where to write it; STORAGE_KEYS by default.")
@click.option("--if-none", is_flag=True, help="Do nothing if there is a sealing key already.")
@click.option(
    "--delay",
    type=click.IntRange(0, 10_000_000),
    help=f"Seconds until it seals; {_DELAY} by default if there is another key or a store is in the clear, else 0.",
)
def sealing(directory: Path | None, if_none: bool, delay: int | None) -> None:
    """Make a sealing key, sealing-<kid>.json. The newest one seals, so this is also the first step of a rotation.

    Add it to every receiver on the store before its time comes; until then the previous key seals. Keep a copy apart
    from the backups of the store: nobody can read them without the key.
    """
    declared, _ = settings.read(os.environ)
    ring, mistakes = keyring.load_sealing(declared)
    last = ring.sealing.last
    if if_none and (last or mistakes):
        return
    folder = directory or declared.keys
    clear = [] if last else _clear_stores(declared, ring)
    now = time.time()
    since = now + (delay if delay is not None else _DELAY if last or clear else 0)
    made = generate(
        now, max(since, last.since + 1 if last else 0)
    )  # never before the last one, whatever the clock says
    path = folder / f"sealing-{made['kid']}.json"
    try:
        if make_folder(str(folder)):
            sync_folder(str(folder.absolute().parent))
        write_file(str(path), json.dumps(made, indent=1).encode("ascii"), b"\n")
        _sync(path)
    except OSError as cause:
        raise click.ClickException(f"{cause.filename}: {cause.strerror}") from None
    click.echo(f"wrote {path}")
    begins = int(str(made["nbf"]))
    if clear:
        steps = _STEPS if begins > now else _AT_ONCE
        click.echo(steps.format(stores=" and ".join(clear), file=path.name, moment=moment(begins)), err=True)
    elif begins > now:
        click.echo(f"it seals from {moment(begins)} on", err=True)


def _sync(path: Path) -> None:
    """Make the name ``path`` durable; where that fails there is no such key, so that nothing is sealed with it."""
    try:
        sync_folder(str(path.parent))
    except OSError:
        path.unlink()
        raise


def _clear_stores(declared: settings.Settings, ring: keyring.Keyring) -> list[str]:
    """Return the variables whose stores hold states in the clear; those that do not exist or answer are left out."""
    hurried = replace(declared, store_timeout=min(declared.store_timeout, _PATIENCE))
    found = []
    for tenant_store in declared.all_stores.values():
        with (
            suppress(Problem),
            closing(bootstrap.open_store_at(tenant_store.url, hurried, ring, create=False)) as store,
        ):
            if store.is_clear():
                found.append(tenant_store.variable)
    return found


def moment(second: int) -> str:
    """Return ``second``, in seconds since the epoch, in UTC for people."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(second))
