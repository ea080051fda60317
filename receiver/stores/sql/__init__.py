"""States in a database server: PostgreSQL, MariaDB and MySQL; SQL Server (written, not run here).

Each change is one transaction at READ COMMITTED whose statements touch rows in the order of their keys. A change that
another transaction or a broken connection stopped is tried again; one that gets no answer in time is an outage.
"""

import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Select, and_, delete, func, select
from sqlalchemy.exc import DBAPIError

from receiver.idempotency import Effect, Receipt
from receiver.problems import Problem, StoreUnavailable
from receiver.states import EXPIRY_FROM, NANOSECONDS, State, Summary
from receiver.stores.batches import batches
from receiver.stores.contract import OnDamage, Store, reraise
from receiver.stores.deadline import bounded, left
from receiver.stores.identity import Expected
from receiver.stores.logins import Logins
from receiver.stores.marker import Mark
from receiver.stores.rows import readable, replacement_of, row_of, state_of
from receiver.stores.sql import errors, identity, queries, upgrade
from receiver.stores.sql.engine import TRANSACTIONAL, begin, check_driver, make_engine
from receiver.stores.sql.pool import InUse, checked_out
from receiver.stores.sql.queries import FIND, ROW, SUMMARY, check_size, delete_states, replace_content, was
from receiver.stores.sql.schema import key_uses, states
from receiver.stores.sql.statements import upserts
from receiver.stores.urls.store_url import StoreURL
from receiver.telemetry import metrics
from receiver.threadpool import blocking

_IDS_PER_STATEMENT = 1000  # SQL Server takes 2,100 parameters, PostgreSQL 65,535
_PAGE = queries.PAGE
_BYTES_PER_READ = 4 << 20
_RECEIPTS_KEPT = 256  # changes between two deletions of expired ones
_LEAST_TRY = 0.2  # seconds; with less left, another try would be in vain
Result = TypeVar("Result")


class SqlStore(Store):
    """States in the database at ``store_url``; ``timeout`` in seconds bounds every wait for it.

    ``connections`` is the most that this process holds open; ``logins`` replace user and password of ``store_url``.
    ``store_id`` is the id of the only store that is accepted there; any, if empty. Raises StoreMisplaced when the
    driver is missing.
    """

    def __init__(
        self,
        store_url: StoreURL,
        timeout: float,
        create: bool = True,
        connections: int = 8,
        logins: Logins | None = None,
        store_id: str = "",
    ) -> None:
        check_driver(store_url)
        self.store_url = store_url
        self.timeout = timeout
        self.create = create
        self.connections = connections
        self._expected = Expected(str(store_url), store_id)
        self.logins = logins or Logins((store_url,))
        self._logins_seen, self._login = self.logins.version, self.logins.of(store_url)
        self._upsert_state, self._upsert_receipt, self._upsert_key_use = upserts(store_url.kind)
        size = func.datalength if store_url.kind == "sqlserver" else func.octet_length
        self._summary = [*SUMMARY, size(states.c.content), states.c.sealing_key]
        self._opened: tuple[int, Engine] | None = None
        self._in_use = InUse(timeout / 5)
        self._opening = threading.Lock()
        self._preparing = threading.Lock()
        self._prepared = False
        self._failed: Problem | None = None  # why the last attempt to prepare it failed
        self._changes = itertools.count(random.randrange(_RECEIPTS_KEPT))  # noqa: S311 - so that processes take turns

    def prepare(self) -> None:
        with errors.driver_errors(), bounded(self.timeout):
            engine = self._engine().execution_options(**TRANSACTIONAL)
            upgrade.prepare(engine, self.store_url, 0.8 * self.timeout, self.create)
            self._prepared = True

    def check_location(self) -> None:
        """Do nothing: only the server could tell, and one that is down must not stop the start."""

    def ping(self) -> None:
        self._read(partial(identity.look, expected=self._expected))

    def schema_version(self) -> str:
        return self._read(lambda connection: upgrade.check_revision(connection, self.store_url))

    def mark(self) -> Mark:
        return self._read(identity.mark_of)

    def init(self) -> Mark:
        return identity.init(self.store_url, self.timeout, self.logins, self._expected.pinned)

    def accept(self) -> Mark:
        return identity.accept(self.store_url, self.timeout, self.logins)

    def find(self, tenant: str, id: str) -> State | None:
        row = self._read(lambda connection: connection.execute(FIND, {"tenant": tenant, "id": id}).one_or_none())
        return state_of(tuple(row)) if row else None

    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        return self._read(lambda connection: was(connection, tenant, receipt)) == "repeated"

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        # Sorted by id, stably: two batches never deadlock, and states of one id keep their order.
        rows = sorted((row_of(tenant, state) for state in states), key=lambda row: row["id"])

        def work(connection: Connection) -> Effect:
            was = self._bind(connection, tenant, receipt)
            if was == "repeated":
                return Effect(jti_was=was)
            check_size(connection, rows)
            stored = sum(connection.execute(self._upsert_state, row).rowcount > 0 for row in rows)
            return Effect(stored, len(rows) - stored, was)

        return self._change(work, receipt)

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        distinct = sorted(set(ids))

        def work(connection: Connection) -> Effect:
            was = self._bind(connection, tenant, receipt)
            if was == "repeated":
                return Effect(jti_was=was)
            return Effect(sum(delete_states(connection, tenant, part) for part in _parts(distinct)), 0, was)

        return self._change(work, receipt)

    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        rows = sorted((replacement_of(tenant, old, new) for old, new in pairs), key=lambda row: row["id"])

        def work(connection: Connection) -> int:
            check_size(connection, rows)
            return sum(replace_content(connection, row) for row in rows)

        return self._change(work, None)

    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        rows = [{"role": role, "kid": kid, "last_used": time} for (role, kid), time in sorted(uses.items())]
        self._change(lambda connection: [connection.execute(self._upsert_key_use, row) for row in rows], None)

    def key_uses(self) -> dict[tuple[str, str], int]:
        rows = self._read(lambda connection: connection.execute(select(key_uses)).all())
        return {(role, kid): last_used for role, kid, last_used in rows}

    def forget_key(self, role: str, kid: str) -> None:
        own = key_uses.c.role == role, key_uses.c.kid == kid
        self._change(lambda connection: connection.execute(delete(key_uses).where(*own)), None)

    def purge(self, before: int) -> int:
        # Whole seconds on both sides: a state is purged a second late rather than early.
        second = states.c.expires_second
        expired = and_(second >= EXPIRY_FROM, second < before // NANOSECONDS)
        some = select(states.c.tenant, states.c.id).where(expired).limit(_IDS_PER_STATEMENT)
        total, count = 0, 1
        while count and (found := self._read(lambda connection: connection.execute(some).all())):
            count = 0  # if none of what was found can be deleted, another search will not help
            for tenant in {row.tenant_id for row in found}:
                ids = sorted(row.id for row in found if row.tenant_id == tenant)
                # Checked again under the row's lock: it may have been saved with a later expiry meanwhile.
                count += self._change(partial(delete_states, tenant=tenant, ids=ids, condition=expired), None)
            total += count
        return total

    def summaries(self, tenant: str | None = None, on_damage: OnDamage = reraise) -> Iterator[Summary]:
        def ask(query: Select[Any]) -> Sequence[Any]:
            return self._read(lambda connection: connection.execute(query).all())

        yield from queries.walk(ask, self._summary, tenant, on_damage)

    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        with errors.driver_errors():
            self._make_ready()
            with self._engine().connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                found = queries.walk(lambda query: connection.execute(query).all(), self._summary, tenant, on_damage)
                chosen = (summary for summary in found if wanted is None or wanted(summary))
                for group in batches(chosen, lambda one: one.size, _PAGE, _BYTES_PER_READ):
                    ids = [summary.id for summary in group]
                    query = select(*ROW).where(states.c.tenant == group[0].tenant, states.c.id.in_(ids))
                    rows = [tuple(row) for row in connection.execute(query.order_by(states.c.id))]
                    yield from readable(rows, state_of, on_damage)

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened and opened[0] == os.getpid():
            opened[1].dispose()

    def _engine(self) -> Engine:
        """Return this process's engine: connections must not be shared over a fork."""
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                if self._opened:
                    self._opened[1].dispose(close=False)
                check = identity.checker(self.store_url, self._expected) if self._expected.pinned else None
                made = make_engine(self.store_url, self.timeout, self.connections, logins=self.logins, check=check)
                self._opened = os.getpid(), made
            if self._logins_seen != self.logins.version:
                self._logins_seen, before, self._login = (
                    self.logins.version,
                    self._login,
                    self.logins.of(self.store_url),
                )
                if before != self._login:
                    self._opened[1].dispose()  # idle connections; one in use is replaced when it is returned
            return self._opened[1]

    def _make_ready(self) -> None:
        if self._prepared:
            return
        before = self._failed
        if not self._preparing.acquire(timeout=left(self.timeout)):  # the server was down when this process started
            raise StoreUnavailable("the schema was not checked in time")
        try:
            if self._prepared:
                return  # type: ignore[unreachable]  # another thread may have prepared it meanwhile
            if self._failed and self._failed is not before:  # another call waited in vain; this one does not
                raise type(self._failed)(self._failed.cause)
            self.prepare()
        except Problem as problem:
            self._failed = problem
            raise
        finally:
            self._preparing.release()

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        with blocking(), errors.driver_errors(), bounded(self.timeout):
            self._make_ready()
            return self._repeat(work, writes=False)

    def _change(self, work: Callable[[Connection], Result], receipt: Receipt | None) -> Result:
        """Return what ``work`` returns, done in its own transaction, which is then durable."""
        with blocking():
            with errors.driver_errors(), bounded(self.timeout):
                self._make_ready()
                result = self._repeat(work, writes=True)
            if receipt and next(self._changes) % _RECEIPTS_KEPT == 0:
                self._forget(receipt.now)
            return result

    def _repeat(self, work: Callable[[Connection], Result], writes: bool) -> Result:
        """Do ``work`` in a transaction; try again after errors that may pass, until the deadline.

        Work that only reads (not ``writes``) needs no transaction where each statement is its own.
        """
        pause = 0.01
        while True:
            # A connection that cannot be made is an outage: 503 makes the platform retry.
            with checked_out(self._engine(), self._in_use) as connection:
                try:
                    with metrics.committing(1) if writes else nullcontext(), connection.begin():
                        if writes:
                            begin(connection)
                        return work(connection)
                except DBAPIError as error:
                    if errors.is_for_another_connection(error):
                        connection.invalidate()
                        pause = max(0.1, pause)  # so that a failover does not cause a storm of logins
                    if not errors.is_worth_another_try(error) or left(pause + _LEAST_TRY) < pause + _LEAST_TRY:
                        raise
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - so that two do not collide again
            pause = min(2 * pause, 1.0)

    def _bind(self, connection: Connection, tenant: str, receipt: Receipt | None) -> str:
        """Record ``receipt`` if its jti is new; return "new", "repeated" or "conflicting"."""
        if receipt is None:
            return "new"
        values: dict[str, object] = {"tenant": tenant, "jti": receipt.jti.encode(), "method": receipt.method}
        values |= {"digest": receipt.digest, "expires": receipt.expires, "now": receipt.now}
        added = connection.execute(self._upsert_receipt, values).rowcount > 0
        return "new" if added else was(connection, tenant, receipt)

    def _forget(self, now: int) -> None:
        """Delete some expired receipts; a failure is only logged, since the change before it succeeded."""
        try:
            with errors.driver_errors(), bounded(self.timeout):
                self._repeat(partial(queries.forget_receipts, now=now), writes=True)
        except Problem as problem:
            logging.getLogger("receiver").warning("old receipts are kept until the next try: %s", problem.cause)


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _IDS_PER_STATEMENT] for start in range(0, len(ids), _IDS_PER_STATEMENT))
