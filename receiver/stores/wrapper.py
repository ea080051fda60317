"""A store around another one: it passes every call through, and its subclasses say which they treat otherwise."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from receiver.idempotency import Effect, Receipt
from receiver.states import State, Summary
from receiver.stores.contract import OnDamage, Store, reraise
from receiver.stores.marker import Mark


class Wrapper(Store):
    """The store ``inner``, as it is."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def prepare(self) -> None:
        self.inner.prepare()

    def check_location(self) -> None:
        self.inner.check_location()

    def ping(self) -> None:
        self.inner.ping()

    def schema_version(self) -> str:
        return self.inner.schema_version()

    def mark(self) -> Mark:
        return self.inner.mark()

    def init(self) -> Mark:
        return self.inner.init()

    def accept(self) -> Mark:
        return self.inner.accept()

    def find(self, tenant: str, id: str) -> State | None:
        return self.inner.find(tenant, id)

    def was_done(self, tenant: str, receipt: Receipt) -> bool:
        return self.inner.was_done(tenant, receipt)

    def save(self, tenant: str, states: Sequence[State], receipt: Receipt | None) -> Effect:
        return self.inner.save(tenant, states, receipt)

    def delete(self, tenant: str, ids: Sequence[str], receipt: Receipt | None) -> Effect:
        return self.inner.delete(tenant, ids, receipt)

    def replace_content(self, tenant: str, pairs: Sequence[tuple[State, State]]) -> int:
        return self.inner.replace_content(tenant, pairs)

    def note_key_uses(self, uses: Mapping[tuple[str, str], int]) -> None:
        self.inner.note_key_uses(uses)

    def key_uses(self) -> dict[tuple[str, str], int]:
        return self.inner.key_uses()

    def forget_key(self, role: str, kid: str) -> None:
        self.inner.forget_key(role, kid)

    def purge(self, before: int) -> int:
        return self.inner.purge(before)

    def summaries(self, tenant: str | None = None, on_damage: OnDamage = reraise) -> Iterator[Summary]:
        return self.inner.summaries(tenant, on_damage)

    def scan(
        self,
        tenant: str | None = None,
        wanted: Callable[[Summary], bool] | None = None,
        on_damage: OnDamage = reraise,
    ) -> Iterator[State]:
        return self.inner.scan(tenant, wanted, on_damage)

    def compact(self) -> None:
        self.inner.compact()

    def close(self) -> None:
        self.inner.close()
