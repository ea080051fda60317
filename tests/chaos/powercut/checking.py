"""The check of one image: a fresh store is opened on it, asked for all that was acknowledged, and used."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from receiver.idempotency import Effect
from receiver.problems import Problem
from receiver.stores import open_store
from receiver.stores.contract import Store
from tests.chaos.powercut.history import History, Versions, after
from tests.chaos.powercut.workload import TENANTS, Change, id_of, is_expiring, state_of, tenant_of
from tests.support.states import a_receipt, a_state

_RECEIPTS = 40  # that are looked for, beside the latest
_LATEST = 16


def check(url: str, history: History, chance: random.Random) -> list[str]:
    """Return what is wrong with the store at ``url``, which holds what a power cut left after ``history``."""
    store = open_store(url, 5)
    try:
        try:
            store.prepare()
        except Problem as problem:
            return [f"refused: {type(problem).__name__}: {problem.cause}"]
        try:
            found = [*_states(store, history), *_receipts(store, history, chance), *_open(store, history)]
            return [*found, *_afterwards(store), *_at_rest(url)]
        except Problem as problem:
            return [f"broken: {type(problem).__name__}: {problem.cause}"]
    finally:
        store.close()


def _states(store: Store, history: History) -> Iterator[str]:
    for (worker, key), allowed in history.allowed.items():
        change, before = history.open.get(worker, (None, {}))
        if change and key in before:
            continue  # _open looks at those
        found = _version(store, worker, key)
        if found not in allowed:
            yield f"lost: {_named(worker, key)} is {found}, not {_text(allowed)}"


def _receipts(store: Store, history: History, chance: random.Random) -> Iterator[str]:
    kept = history.receipts
    for change in kept[-_LATEST:] + chance.sample(kept, min(len(kept), _RECEIPTS)):
        if not store.was_done(change.tenant, change.receipt):
            yield f"receipt lost: of {change.worker} {change.number}, {change.call}"


def _open(store: Store, history: History) -> Iterator[str]:
    """Check each change that was under way: all of it, with its receipt, or nothing."""
    for change, before in history.open.values():
        if not change.items:
            continue
        found = {key: _version(store, change.worker, key) for key, _ in change.items}
        done = store.was_done(change.tenant, change.receipt) if change.receipt else None
        was_before = any(one.jti == change.jti for one in history.receipts if change.jti)
        whole = not was_before and all(_is_done(change, key, version, before, found) for key, version in change.items)
        nothing = all(found[key] in before[key] for key in found)
        if not (whole if done and not was_before else nothing if done is not None else whole or nothing):
            yield f"half done: {_described(change)}, receipt {done}: found {found}, before {before}"


def _is_done(change: Change, key: int, version: int, before: dict[int, Versions], found: dict) -> bool:
    purged = is_expiring(key) and found[key] is None
    return purged or found[key] in after(change.call, version, before[key])


def _version(store: Store, worker: str, key: int) -> int | str | None:
    """Return the version of a state that is stored; a text when it is none that was saved."""
    state = store.find(tenant_of(worker), id_of(worker, key))
    if state is None:
        return None
    version = int(state.content.text.split(";")[0].split()[2])
    return version if state == state_of(worker, key, version) else f"a damaged version {version}"


def _afterwards(store: Store) -> Iterator[str]:
    """Check that the store goes on."""
    for tenant in TENANTS:
        state, receipt = a_state(999, tenant=tenant), a_receipt("afterwards")
        effect = store.save(tenant, [state], receipt)
        if effect != Effect(stored=1) or store.find(tenant, state.id) != state or not store.was_done(tenant, receipt):
            yield "afterwards: a save is not there"
        store.delete(tenant, [state.id], None)
        if store.find(tenant, state.id):
            yield "afterwards: a delete had no effect"


def _at_rest(url: str) -> Sequence[str]:
    kind, _, path = url.partition("://")
    if kind == "file":
        left = [str(found) for found in Path(path).glob("*/.change/*")]
        return [f"left behind: {left}"] if left else []
    from receiver.stores.sqlite.driver import sqlite3

    with contextlib.closing(sqlite3.connect(path[1:])) as connection:
        [(result,)] = connection.execute("pragma quick_check(1)").fetchall()
    return [] if result == "ok" else [f"damaged: {result}"]


def _named(worker: str, key: int) -> str:
    return f"state {key} of {worker}"


def _text(versions: Versions) -> str:
    return " or ".join(map(str, versions))


def _described(change: Change) -> str:
    return f"{change.call} {change.number} of {change.worker} ({change.items})"
