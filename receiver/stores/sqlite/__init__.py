"""The embedded store: one SQLite file in WAL mode, shared by all workers of one machine.

sqlite-utils makes the schema and its migrations; the hot path has its own SQL. Changes are BEGIN IMMEDIATE
transactions: a deferred one that reads before it writes fails at once under load. Changes that wait at the same time
share one transaction, and its sync.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from receiver.idempotency import Effect, Receipt
from receiver.problems import ReplayRefused, StoreDamaged, StoreUnavailable
from receiver.states import EXPIRY_FROM, NANOSECONDS, State, Summary
from receiver.stores.contract import OnDamage, Store, reraise
from receiver.stores.group_commit import GroupCommit
from receiver.stores.marker import Mark
from receiver.stores.rows import readable, summary_of
from receiver.stores.sqlite import generation, identity, rows
from receiver.stores.sqlite.driver import driver_errors, sqlite3
from receiver.stores.sqlite.file import DatabaseFile, begin
from receiver.stores.sqlite.rows import NOTE_KEY_USE, REPLACE_CONTENT, SUMMARY, bind, forget, jti_was
from receiver.stores.sqlite.schema import mark_in
from receiver.threadpool import blocking

_PAGE = 500
_LARGE = 1 << 20  # characters; a connection keeps the last values it was given, so one that had more is closed
_RECEIPTS_KEPT = 8  # between two deletions of expired ones


class SqliteStore(Store):
    """States in the SQLite file at ``path``; ``timeout`` in seconds bounds every wait for its lock."""

    def __init__(self, path: str, timeout: float, create: bool = True, store_id: str = "") -> None:
        self.path = Path(path)
        self.timeout = timeout
        self._file = DatabaseFile(self.path, timeout, create, store_id)
        # Threads of one process queue here in order; only processes compete in SQLite's unfair busy wait.
        self._receipts = itertools.count()
        self._group: GroupCommit[_Change, Effect] = GroupCommit(self._commit)

    def prepare(self) -> None:
        self._file.prepare()
        self._file.space.make_reserve()

    def check_location(self) -> None:
        self._file.check_location()

    def close(self) -> None:
        self._file.kept.close()
        self._file.place.marker.close()

    def ping(self) -> None:
        try:
            with self._reading() as connection:
                connection.execute("select 1 from states limit 1").fetchone()
        except StoreDamaged as damage:
            raise StoreUnavailable(damage.cause) from damage

    def schema_version(self) -> str:
        with self._reading() as connection:
            return self._file.check_schema(connection)

    def mark(self) -> Mark:
        with self._reading() as connection:
            return mark_in(connection)

    def init(self) -> Mark:
        return identity.init(self._file)

    def accept(self) -> Mark:
        return identity.accept(self._file)

    def find(self, tenant: str, id: str) -> State | None:
        with driver_errors():
            return rows.find(self._file.connection(), tenant, id)

    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        with self._reading() as connection:
            return jti_was(connection, tenant, receipt) == "repeated"

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        saved = [rows.saved(tenant, state) for state in states]

        def work(connection: sqlite3.Connection, was: str) -> Effect:
            stored = sum(rows.save(connection, row) for row in saved)
            return Effect(stored, len(saved) - stored, was)

        large = sum(len(state.content.text) for state in states) > _LARGE
        return self._change(self._bound(tenant, receipt, work), large)

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        def work(connection: sqlite3.Connection, was: str) -> Effect:
            cursor = connection.executemany(
                "delete from states where tenant = ? and id = ?", ((tenant, id) for id in ids)
            )
            if cursor.rowcount < len(ids):
                for id in ids:
                    if damage := rows.damage_at(connection, tenant, id):
                        raise damage
            return Effect(max(cursor.rowcount, 0), 0, was)

        return self._change(self._bound(tenant, receipt, work), frees=True)

    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        replaced = [rows.replaced(tenant, old, new) for old, new in pairs]

        def work(connection: sqlite3.Connection) -> Effect:
            return Effect(sum(connection.execute(REPLACE_CONTENT, row).rowcount for row in replaced))

        return self._change(work, large=True).stored

    def compact(self) -> None:
        with driver_errors():
            self._file.connection()
            with closing(self._file.connect()) as connection:
                connection.execute("vacuum")  # free pages, and free parts of pages, still hold earlier contents
                connection.execute("pragma wal_checkpoint(truncate)")

    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        uses_of = [{"role": role, "kid": kid, "last_used": time} for (role, kid), time in uses.items()]
        self._change(lambda connection: Effect(connection.executemany(NOTE_KEY_USE, uses_of).rowcount))

    def key_uses(self) -> dict[tuple[str, str], int]:
        with self._reading() as connection:
            return {(role, kid): used for role, kid, used in connection.execute("select * from key_uses")}

    def forget_key(self, role: str, kid: str) -> None:
        sql = "delete from key_uses where role = ? and kid = ?"
        self._change(lambda connection: Effect(connection.execute(sql, (role, kid)).rowcount), frees=True)

    def purge(self, before: int) -> int:
        # Whole seconds on both sides: a state is purged a second late rather than early.
        bounds = {"first": EXPIRY_FROM, "second": before // NANOSECONDS}
        sql = "delete from states where expires_second >= :first and expires_second < :second"
        return self._change(lambda connection: Effect(connection.execute(sql, bounds).rowcount), frees=True).stored

    def summaries(self, tenant: str | None = None, on_damage: OnDamage = reraise) -> Iterator[Summary]:
        sql = f"""
            select {SUMMARY} from states
             where (tenant, id) > (:tenant, :id) and tenant between :first and :last
             order by tenant, id limit {_PAGE}
        """  # noqa: S608
        at = {"tenant": "", "id": "", "first": tenant or "", "last": tenant or "~"}
        while True:
            with self._reading() as connection:
                page = connection.execute(sql, at).fetchall()
            yield from readable(page, summary_of, on_damage)
            if len(page) < _PAGE:
                return
            at |= {"tenant": page[-1][0], "id": page[-1][1]}

    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        where = "" if tenant is None else "where tenant = :tenant"
        keys = f"select {SUMMARY} from states {where} order by tenant, id"  # noqa: S608
        with driver_errors():
            self._file.connection()
            # A connection of its own: an open transaction would pin this thread's to an old snapshot.
            with closing(self._file.connect()) as connection:
                connection.execute("begin")
                for summary in readable(connection.execute(keys, {"tenant": tenant}), summary_of, on_damage):
                    if wanted is None or wanted(summary):
                        try:
                            state = rows.listed(connection, summary)
                        except StoreDamaged as damage:
                            on_damage(damage)
                        else:
                            yield state

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with driver_errors():
            yield self._file.connection()

    def _bound(
        self, tenant: str, receipt: Receipt | None, work: Callable[[sqlite3.Connection, str], Effect]
    ) -> Callable[[sqlite3.Connection], Effect]:
        """Return ``work`` bound to ``receipt``: the same request has no second effect. It gets what the jti was."""

        def bound(connection: sqlite3.Connection) -> Effect:
            if receipt and next(self._receipts) % _RECEIPTS_KEPT == 0:
                forget(connection, receipt.now)
            was = bind(connection, tenant, receipt) if receipt else "new"
            return Effect(jti_was=was) if was == "repeated" else work(connection, was)

        return bound

    def _change(self, work: Callable[[sqlite3.Connection], Effect], large: bool = False, frees: bool = False) -> Effect:
        """Return what ``work`` returns, done in a transaction that is then durable; all of it or nothing."""
        return self._group.submit(_Change(work, time.monotonic() + self.timeout, large, frees), self.timeout)

    def _commit(self, group: Sequence["_Change"]) -> list[Effect | Exception]:
        """Do the changes of ``group`` in one durable transaction; a change that fails does not fail the others."""
        if len(group) > 1:
            with suppress(Exception):
                return self._transaction(group)
        outcomes: list[Effect | Exception] = []
        for change in group:
            try:
                with driver_errors():
                    outcomes += self._alone(change)
            except Exception as cause:  # noqa: BLE001 - its own caller gets it
                outcomes.append(cause)
        return outcomes

    def _alone(self, change: "_Change") -> list[Effect | Exception]:
        """Do ``change`` in a transaction of its own, a second time when there was no space for it at first."""
        try:
            return self._transaction([change])
        except sqlite3.Error as error:
            if not self._file.space.is_short(error):
                raise
        return self._file.space.again(lambda: self._transaction([change]), self._file.writer, change.frees)

    def _transaction(self, group: Sequence["_Change"]) -> list[Effect | Exception]:
        connection = self._file.writer()
        self._file.space.bound(connection, all(change.frees for change in group))
        begin(connection, group[0].deadline)
        try:
            outcomes: list[Effect | Exception] = [_outcome(change, connection) for change in group]
            mark = generation.advance(connection)
            with blocking():
                connection.execute("commit")
            self._file.acknowledge(mark)
            self._file.space.restore()
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("rollback")
            if connection.in_transaction:
                self._file.kept.drop_writer()  # it cannot begin another
            raise
        finally:
            if any(change.large for change in group):
                self._file.kept.drop_writer()
        return outcomes


@dataclass(frozen=True, slots=True)
class _Change:
    """Work on a connection, its ``deadline`` (time.monotonic()) to begin a transaction, and whether it is ``large``.

    What ``frees`` space, such as a delete, may use the reserve for it.
    """

    work: Callable[[sqlite3.Connection], Effect]
    deadline: float
    large: bool
    frees: bool


def _outcome(change: _Change, connection: sqlite3.Connection) -> Effect | ReplayRefused:
    try:
        return change.work(connection)
    except ReplayRefused as refusal:  # nothing of this change was done, so the others may go on
        return refusal
