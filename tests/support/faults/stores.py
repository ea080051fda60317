"""Faults in what a store keeps, of whom, and when it does."""

import threading
import time

from receiver import body, encoding, envelope, routes, schemas
from receiver.idempotency import Effect
from receiver.problems import BadRequest, NotFound
from receiver.server import application
from receiver.stores import sqlite
from receiver.stores.sqlite import SqliteStore, rows
from receiver.threadpool import blocking
from tests.support.faults.declaring import fault
from tests.support.waiting import pass_time


@fault("concurrency.newest-wins")
def reads_before_it_writes_without_a_lock():
    whole, find, upsert = SqliteStore.save, SqliteStore.find, rows._UPSERT.partition("where (excluded")[0]
    rows._UPSERT = upsert

    def save(self, tenant, found, receipt):
        kept = [find(self, tenant, state.id) for state in found]
        with blocking():
            pass_time(0.03, "another one writes between reading and writing")
        late = [
            s for s, k in zip(found, kept, strict=True) if k and k.updated_at.nanoseconds > s.updated_at.nanoseconds
        ]
        return whole(self, tenant, [state for state in found if state not in late], receipt)

    SqliteStore.save = save


@fault("tenants.load")
def leaks_across_tenants():
    def find(self, _tenant, id):
        with self._reading() as connection:
            row = connection.execute(f"select {sqlite.COLUMNS} from states where id = ?", [id]).fetchone()
            return sqlite.state_of(row) if row else None

    SqliteStore.find = find


@fault("tenants.delete")
def deletes_across_tenants():
    def delete(self, tenant, ids, receipt):
        def work(connection, was):
            connection.executemany("delete from states where id = ?", [(id,) for id in ids])
            return Effect(jti_was=was)

        return self._change(self._bound(tenant, receipt, work))

    SqliteStore.delete = delete


@fault("tenants.save", "tenants.same-id")
def saves_by_the_id_alone():
    whole = SqliteStore.save

    def save(self, tenant, found, receipt):
        ids = [(state.id, tenant) for state in found]
        self._change(lambda connection: connection.executemany("delete from states where id = ? and tenant <> ?", ids))
        return whole(self, tenant, found, receipt)

    SqliteStore.save = save


@fault("tenants.claim")
def ignores_the_tenant_claim():
    whole = envelope._claims_fault
    envelope._claims_fault = lambda claims, tenant: whole(dict(claims, tenant=tenant.lower()), tenant)


@fault("batch.all", "batch.two")
def drops_the_last_item():
    whole = envelope.open_states

    def open_states(tokens, *rest):
        tokens = list(tokens)
        return whole(tokens[: max(1, len(tokens) - 1)], *rest)

    envelope.open_states = open_states


@fault("batch.invalid-last", "batch.unreadable", "batch.keeps-old")
def stores_what_comes_before_the_first_fault():
    whole = envelope.open_states

    def open_states(tokens, tenant, *rest):
        good = []
        try:
            for token in tokens:
                good += whole([token], tenant, *rest)
        except BadRequest:
            routes._receiver().store.save(tenant.lower(), good, None)
            raise
        return good

    envelope.open_states = open_states


@fault("save.new", "concurrency.read-your-write")
def answers_before_it_commits():
    whole = SqliteStore.save

    def save(self, *what):
        threading.Timer(0.5, whole, (self, *what)).start()
        return Effect(1)

    SqliteStore.save = save


@fault("save.newer-wins", "concurrency.read-your-write")
def reads_from_a_stale_cache():
    whole, cache = SqliteStore.find, {}

    def find(self, tenant, id):
        if (tenant, id) not in cache and (found := whole(self, tenant, id)):
            cache[tenant, id] = found
        return cache.get((tenant, id))

    SqliteStore.find = find


@fault("delete.many")
def deletes_the_first_hundred_ids():
    whole = SqliteStore.delete
    SqliteStore.delete = lambda self, tenant, ids, receipt: whole(self, tenant, ids[:100], receipt)


@fault("delete.unknown", "delete.again")
def answers_404_to_a_delete_of_unknown_ids():
    whole = SqliteStore.delete

    def delete(self, tenant, ids, receipt):
        effect = whole(self, tenant, ids, receipt)
        if effect.stored < len(ids):
            raise NotFound
        return effect

    SqliteStore.delete = delete


@fault("batch.empty", "delete.empty")
def answers_500_to_an_empty_array():
    whole = routes._items

    def items(raw, schema):
        found = whole(raw, schema)
        if not found:
            raise RuntimeError("an empty batch")
        return found

    routes._items = items


@fault("save.empties")
def takes_no_empty_text_for_a_UUID():
    whole = schemas.EmptyIsNone._deserialize

    def deserialize(self, value, *what, **how):
        if value == "":
            raise schemas.ValidationError("must be a UUID")
        return whole(self, value, *what, **how)

    schemas.EmptyIsNone._deserialize = deserialize


@fault("save.never-expires")
def needs_expiresAt():
    whole = envelope.open_states

    def open_states(*what):
        states = whole(*what)
        if any(state.expires_at is None for state in states):
            raise RuntimeError("expiresAt is null")
        return states

    envelope.open_states = open_states


@fault("times.clock")
def has_a_clock_that_is_95_seconds_slow():
    right, whole = time.time, application.create_app
    time.time = lambda: right() - 95
    application.create_app = lambda *what: whole(*what, clock=time.time)


@fault("delete.no-body")
def takes_a_missing_body_for_an_empty_array():
    whole = body.read

    def read(environ, limit):
        if environ.get("CONTENT_LENGTH") in (None, "", "0") and "HTTP_TRANSFER_ENCODING" not in environ:
            return b"[]"
        return whole(environ, limit)

    body.read = read


@fault("save.expired")
def hides_expired_states():
    whole = SqliteStore.find

    def find(self, tenant, id):
        found = whole(self, tenant, id)
        return None if found and found.expires_at and found.expires_at.nanoseconds < time.time_ns() else found

    SqliteStore.find = find


@fault("load.id-case", "claims.path-upper-case", "save.id-case", "delete.id-case")
def compares_ids_by_letter_case():
    routes._uuid = lambda text: text if encoding.canonical_uuid(text) else routes.canonical_uuid(text)
    schemas.UniqueId._deserialize = lambda self, value, *_a, **_k: (
        str(value) if encoding.canonical_uuid(value) else 1 / 0
    )
