"""``receiver store reseal``: every content under the newest sealing key, or in the clear again."""

import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from uuid import UUID

import click

from receiver import bootstrap
from receiver.commands.keys_sealing import moment
from receiver.commands.progress import progress
from receiver.commands.tables import counted
from receiver.conformance.printable import visible
from receiver.keys.keyring import Keyring
from receiver.problems import Problem
from receiver.settings import Settings
from receiver.stores import resealing
from receiver.stores.sealed import Sealed
from receiver.stores.urls.store_url import StoreURL


@click.command()
@click.option("--open", "opening", is_flag=True, help="Store what is sealed in the clear again.")
@click.option("--tenant", type=click.UUID, help="UUID of the one tenant whose states are meant.")
@click.option("--stopped", is_flag=True, help="No receiver runs on the store: wait for none.")
@click.option("--no-compact", is_flag=True, help="Let SQLite keep what free pages of its file still hold in the clear.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def reseal(opening: bool, tenant: UUID | None, stopped: bool, no_compact: bool, as_json: bool) -> None:
    """Seal every content with the newest sealing key, also what was stored in the clear.

    May be broken off and run again, and while receivers use the store: they need the new key first, over contents in
    the clear with STORAGE_CLEAR_STATES=read, as `receiver keys sealing` explains. With --open they need
    STORAGE_CLEAR_STATES=write first. When contents were clear, SQLite writes its file anew at the end, and saves wait
    meanwhile. A key that was in use a moment ago is waited for, half a minute, so that afterwards none of the old ones
    is needed. Ends with 1 when a content could not be opened, or is left.
    """
    settings, ring = bootstrap.configure_contents()
    if not ring.sealing:
        raise click.UsageError("there is no sealing key: put one into STORAGE_SEALING_KEY or into STORAGE_KEYS")
    refuses_clear = settings.clear_states == "refuse" and not opening
    settings = replace(settings, clear_states="write" if opening else "read")
    still_held = 0.0 if stopped else resealing.STILL_HELD
    work = _Work(settings, ring, tenant and str(tenant), still_held, not no_compact, refuses_clear)
    rows = [work.reseal(store_url) for store_url in settings.store_urls]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        _report(rows)
    sys.exit(0 if all(_is_done(row) for row in rows) else 1)


_LOCKED_OUT = (
    "a receiver has stored contents in the clear just now, and with STORAGE_CLEAR_STATES=refuse it cannot take the key,"
    " so it could read nothing that is sealed: set STORAGE_CLEAR_STATES=read for it and here and restart it first; or"
    " stop it, and run this with --stopped"
)


@dataclass(frozen=True)
class _Work:
    settings: Settings
    ring: Keyring
    tenant: str | None
    still_held: float
    compact: bool
    refuses_clear: bool

    def reseal(self, store_url: StoreURL) -> dict[str, object]:
        """Reseal the store at ``store_url``; return what came of it as plain values."""
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
        left = {} if self.tenant else done.left  # those of other tenants were not asked for
        later = self.ring.sealing.last
        told = {"damaged": list(done.damaged.values()), "left": left, "held": [] if self.tenant else done.held}
        is_later = self.settings.clear_states != "write" and done.key != later.kid
        told["later"] = later.since if is_later else None
        return {"store": str(store_url), **asdict(done), **told}

    def would_lock_out(self, store: Sealed) -> bool:
        """Tell whether a receiver writes to ``store`` that takes no key over contents in the clear."""
        return self.refuses_clear and self.still_held > 0 and store.writes_in_the_clear(self.still_held)

    def _walk(self, store: Sealed) -> resealing.Resealed:
        total = sum(1 for _ in store.summaries(self.tenant, lambda _damage: None))
        with progress("resealing", total) as step:
            done = resealing.reseal(store, self.tenant, step, self.still_held)
        if not done.held or self.tenant:
            return done
        click.echo(f"waiting {self.still_held:g} s: {', '.join(done.held)} was in use a moment ago", err=True)
        time.sleep(self.still_held)
        again = resealing.reseal(store, None, lambda: None, self.still_held)
        again.resealed, again.sealed = again.resealed + done.resealed, again.sealed + done.sealed
        return again


def _is_done(row: dict) -> bool:
    return not any(row.get(name) for name in ("problem", "damaged", "left", "held", "later"))


def _report(rows: list[dict]) -> None:
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
            click.echo("  `receiver store delete` takes what cannot be opened away; until then its key stays noted")
        for kid in [*row["left"], *row["held"]]:
            click.echo(f"  {kid} is still written with by a receiver: give it the new key, then run this again")
        if row["later"]:
            click.echo(f"  a newer key seals from {moment(row['later'])} on: run this again then")
