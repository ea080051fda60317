"""Data residency: one Store that keeps the states of some tenants in stores of their own.

A tenant's calls reach its own store and no other, so an outage of that store affects that tenant alone.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from receiver.idempotency import Effect, Receipt
from receiver.problems import Problem
from receiver.states import State, Summary, key_of
from receiver.stores.contract import OnDamage, Store, reraise
from receiver.stores.marker import Mark

Result = TypeVar("Result")


class ByTenantStore(Store):
    """``own`` maps tenants (UUIDs in lower case) to the stores they have; ``others`` is the store of the rest."""

    def __init__(self, others: Store, own: Mapping[str, Store]) -> None:
        self.others = others
        self.own = own
        self._stores = list(dict.fromkeys([others, *own.values()]))

    def of(self, tenant: str) -> Store:
        """Return the store that ``tenant``'s states belong to."""
        return self.own.get(tenant, self.others)

    def prepare(self) -> None:
        self._each(lambda store: store.prepare())

    def check_location(self) -> None:
        for store in self._stores:
            store.check_location()

    def ping(self) -> None:
        """Ask the store of the rest only: one tenant's outage must not stop the service for the others."""
        self.others.ping()

    def schema_version(self) -> str:
        return self.others.schema_version()

    def mark(self) -> Mark:
        return self.others.mark()

    def init(self) -> Mark:
        return self.others.init()

    def accept(self) -> Mark:
        return self.others.accept()

    def find(self, tenant: str, id: str) -> State | None:
        return self.of(tenant).find(tenant, id)

    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        return self.of(tenant).was_done(tenant, receipt)

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        return self.of(tenant).save(tenant, states, receipt)

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        return self.of(tenant).delete(tenant, ids, receipt)

    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        return self.of(tenant).replace_content(tenant, pairs)

    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        self.others.note_key_uses(uses)

    def key_uses(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for uses in self._each(lambda store: store.key_uses()):
            found |= {key: max(used, found.get(key, 0)) for key, used in uses.items()}
        return found

    def forget_key(self, role: str, kid: str) -> None:
        self._each(lambda store: store.forget_key(role, kid))

    def purge(self, before: int) -> int:
        return sum(self._each(lambda store: store.purge(before)))

    def summaries(self, tenant: str | None = None, on_damage: OnDamage = reraise) -> Iterator[Summary]:
        if tenant is not None:
            return self.of(tenant).summaries(tenant, on_damage)
        parts = (filter(self._at_home(store), store.summaries(None, on_damage)) for store in self._stores)
        return heapq.merge(*parts, key=key_of)

    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        if tenant is not None:
            return self.of(tenant).scan(tenant, wanted, on_damage)
        return heapq.merge(*(self._scan_home(store, wanted, on_damage) for store in self._stores), key=key_of)

    def _each(self, do: Callable[[Store], Result]) -> list[Result]:
        """Return what ``do`` returns for each store. All are tried; then the first problem, if any, is raised."""
        done, problems = [], []
        for store in self._stores:
            try:
                done.append(do(store))
            except Problem as problem:
                problems.append(problem)
        if problems:
            raise problems[0]
        return done

    def _scan_home(
        self, store: Store, wanted: Callable[[Summary], bool] | None, on_damage: OnDamage
    ) -> Iterator[State]:
        home = self._at_home(store)
        return store.scan(None, lambda one: home(one) and (wanted is None or wanted(one)), on_damage)

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def _at_home(self, store: Store) -> Callable[[Summary], bool]:
        """Return a filter for the states at home in ``store``: what a tenant left in a former store is not served."""
        return lambda one: self.of(one.tenant) is store
