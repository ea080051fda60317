"""Defects of the calls, whatever the store."""

import threading
from dataclasses import replace

from receiver import envelope, routes
from receiver.problems import BadRequest, StoreUnavailable
from receiver.stores.sealed import Sealed
from receiver.telemetry.logs import log
from tests.chaos.defects import defect


@defect(
    "loads-from-memory",
    "each worker keeps what it loaded in its memory",
    "none",
    "sqlite",
    {"stale", "lost"},
    seconds=20,
)
def _loads_from_memory() -> None:
    honest, kept = Sealed.find, {}

    def find(self, tenant, id):
        if not kept.get((tenant, id)):
            kept[tenant, id] = honest(self, tenant, id)
        return kept[tenant, id]

    Sealed.find = find


@defect(
    "half-a-refused-batch",
    "the states before a broken token are stored, and the batch is answered 400",
    "none",
    "sqlite",
    {"effect of a refusal"},
)
def _half_a_refused_batch() -> None:
    honest = envelope.open_states

    def open_states(tokens, tenant, keyring, now, *limits):
        opened = []
        try:
            for token in tokens:
                opened += honest([token], tenant, keyring, now, *limits)
        except BadRequest:
            routes._receiver().store.save(tenant.lower(), opened, None)
            raise
        return opened

    envelope.open_states = open_states


@defect(
    "repeats-have-effects",
    "no record of a request is kept, so that a repeated one changes the store again",
    "none",
    "file",
    {"resurrected", "lost", "stale"},
)
def _repeats_have_effects() -> None:
    routes._receipt = lambda caller, raw, now: None


@defect(
    "absent-when-down",
    "a load is answered 404 while the store is down",
    "database-stop",
    "postgresql",
    {"lost"},
    seconds=25,
)
def _absent_when_down() -> None:
    honest = Sealed.find

    def find(self, tenant, id):
        try:
            return honest(self, tenant, id)
        except StoreUnavailable:
            return None

    Sealed.find = find


@defect("contents-in-the-log", "a save writes the content to the log", "none", "sqlite", {"log"})
def _contents_in_the_log() -> None:
    honest = Sealed.save

    def save(self, tenant, states, receipt):
        log.warning("saving %s", states[0].content.text[:200])
        return honest(self, tenant, states, receipt)

    Sealed.save = save


@defect(
    "another-states-content",
    "now and then two loads at the same time swap their contents",
    "none",
    "mariadb",
    {"wrong content", "replies verify", "stale", "lost"},
)
def _another_states_content() -> None:
    honest, last = Sealed.find, threading.local()

    def find(self, tenant, id):
        state = honest(self, tenant, id)
        before, last.state = getattr(last, "state", None), state
        is_unlucky = before and state and before.id != id and id.startswith("0")
        return replace(state, content=before.content) if is_unlucky else state

    Sealed.find = find
