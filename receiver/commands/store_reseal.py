"""``receiver store reseal``: seals every content with the newest sealing key, or stores it in the clear again."""

import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any
from uuid import UUID

import click

from receiver import bootstrap
from receiver.commands.keys_sealing import moment
from receiver.commands.progress import progress
from receiver.commands.store_options import json_option, tenant_option
from receiver.commands.tables import counted
from receiver.conformance.printable import visible
from receiver.keys.keyring import Keyring
from receiver.problems import Problem
from receiver.settings import Settings
from receiver.stores import resealing
from receiver.stores.sealed import Sealed
from receiver.stores.urls.store_url import StoreURL


@click.command()
@click.option("--open", "opening", is_flag=True, help="Store sealed contents in the clear again.")
@tenant_option
@click.option("--stopped", is_flag=True, help="No receiver runs on the store: do not wait for any.")
@click.option(
    "--no-compact", is_flag=True, help="Do not compact an SQLite file, whose free pages may hold contents in the clear."
)
@json_option
def reseal(opening: bool, tenant: UUID | None, stopped: bool, no_compact: bool, as_json: bool) -> None:
    """Seal every content with the newest sealing key, including contents stored in the clear.

    You may interrupt it and run it again, also while receivers use the store. The receivers need the new key first;
    if the store holds contents in the clear, also STORAGE_CLEAR_STATES=read, as `receiver keys sealing` explains.
    With --open they need STORAGE_CLEAR_STATES=write first. If contents were in the clear, SQLite rewrites its file at
    the end, and saves wait for that. If an old key was used a moment ago, the command waits half a minute, so that no
    old key is needed afterwards. Exit status 1 if a content could not be opened, or still has an old key.
    """
    settings, ring = bootstrap.configure_contents()
    if not ring.sealing:
        raise click.UsageError("there is no sealing key: put one into STORAGE_SEALING_KEY or STORAGE_KEYS")
    refuses_clear = settings.clear_states == "refuse" and not opening
    settings = replace(settings, clear_states="write" if opening else "read")
    still_held = 0.0 if stopped else resealing.STILL_HELD
    work = _Work(settings, ring, str(tenant) if tenant else None, still_held, not no_compact, refuses_clear)
    rows = [work.reseal(store_url) for store_url in settings.store_urls]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        _report(rows)
    sys.exit(0 if all(_is_done(row) for row in rows) else 1)


Row = dict[str, Any]  # as JSON shows it
_LOCKED_OUT = (
    "a receiver has just stored contents in the clear. With STORAGE_CLEAR_STATES=refuse it cannot accept the key, so it"
    " could not read sealed contents: set STORAGE_CLEAR_STATES=read for it and here, and restart it first; or stop it,"
    " and run this with --stopped"
)


@dataclass(frozen=True)
class _Work:
    settings: Settings
    ring: Keyring
    tenant: str | None
    still_held: float
    compact: bool
    refuses_clear: bool

    def reseal(self, store_url: StoreURL) -> Row:
        """Reseal the store at ``store_url``; return the result as plain values."""
        with contextlib.closing(bootstrap.open_store_at(store_url, self.settings, self.ring, create=False)) as store:
            try:
                if self.would_lock_out(store):
                    return {"store": str(store_url), "resealed": 0, "damaged": [], "left": {}, "problem": _LOCKED_OUT}
                done = self._walk(store)
                if self.compact and done.sealed:
                    click.echo("compacting", err=True)
                    store.compact()
            except Problem as problem:
                return {"store": str(store_url), "resealed": 0, "damaged": [], "left": {}, "problem": problem.cause}
        later = self.ring.sealing.last
        is_later = later is not None and self.settings.clear_states != "write" and done.key != later.kid
        return {
            "store": str(store_url),
            **asdict(done),
            "damaged": list(done.damaged.values()),
            "left": {} if self.tenant else done.left,  # states of other tenants were not to be resealed
            "held": [] if self.tenant else done.held,
            "later": later.since if later and is_later else None,
        }

    def would_lock_out(self, store: Sealed) -> bool:
        """Tell whether a receiver that writes to ``store`` would not accept a key over contents in the clear."""
        return self.refuses_clear and self.still_held > 0 and store.writes_in_the_clear(self.still_held)

    def _walk(self, store: Sealed) -> resealing.Resealed:
        total = sum(1 for _ in store.summaries(self.tenant, lambda _damage: None))
        with progress("resealing", total) as step:
            done = resealing.reseal(store, self.tenant, step, self.still_held)
        if not done.held or self.tenant:
            return done
        click.echo(f"waiting {self.still_held:g} s: {', '.join(done.held)} was used a moment ago", err=True)
        time.sleep(self.still_held)
        again = resealing.reseal(store, None, lambda: None, self.still_held)
        again.resealed, again.sealed = again.resealed + done.resealed, again.sealed + done.sealed
        return again


def _is_done(row: Row) -> bool:
    return not any(row.get(name) for name in ("problem", "damaged", "left", "held", "later"))


def _report(rows: list[Row]) -> None:
    for row in rows:
        if "problem" in row:
            click.echo(f"{row['store']}: {visible(row['problem'])}")
            continue
        count, now = row["resealed"], "in the clear" if row["key"] == "clear" else f"sealed with {row['key']}"
        was, is_now = ("was", "is") if count == 1 else ("were", "are")
        click.echo(f"{row['store']}: {counted(count, 'state')} {was} resealed and {is_now} {now}")
        for cause in row["damaged"]:
            click.echo(f"  damaged: {visible(cause)}")
        if row["damaged"]:
            click.echo(
                "  `receiver store delete` deletes what cannot be opened; until then the store remembers its key"
            )
        for kid in [*row["left"], *row["held"]]:
            click.echo(f"  a receiver still writes with {kid}: give it the new key, then run this again")
        if row["later"]:
            click.echo(f"  a newer key seals from {moment(row['later'])} on: run this again then")
