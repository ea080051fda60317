"""What a store may hold, by the journal: the legal values of every id at every moment, and how a read breaks them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.journal import Item, Operation

Value = tuple[int, str] | None  # (updated, digest), or None where there is no state


@dataclass
class Change:
    """A change of one id: ``item`` saved, or deleted; None of ``acknowledged`` means that it never was."""

    operation: Operation
    item: Item
    began: float
    acknowledged: float | None

    @property
    def deletes(self) -> bool:
        return self.operation.call == "delete"


@dataclass
class Key:
    """One id: its changes in their order, the digests that were refused, and the ``values`` after each change."""

    tenant: str
    id: str
    changes: list[Change] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    values: list[Value] = field(default_factory=lambda: [None])
    is_doubtful: bool = False  # a change of unknown outcome was given up before others followed

    def add(self, change: Change) -> None:
        """Add the next change; newer wins, an equal time counts as newer (protocol, section 5.7)."""
        if self.changes and self.changes[-1].acknowledged is None:
            self.is_doubtful = True
        value, item = self.values[-1], change.item
        if change.deletes:
            value = None
        elif value is None or item.updated >= value[0]:
            value = (item.updated, item.digest)
        self.changes.append(change)
        self.values.append(value)

    def legal(self, began: float, ended: float) -> list[Value]:
        """Return the values that a load which took from ``began`` to ``ended`` may return."""
        done = sum(1 for one in self.changes if one.acknowledged is not None and one.acknowledged < began)
        begun = sum(1 for one in self.changes if one.began < ended)
        return self.values[done : max(done, begun) + 1]


def keys_of(operations: Iterable[Operation]) -> dict[tuple[str, str], Key]:
    """Return the keys of all changes of ``operations``, by tenant and id."""
    found: dict[tuple[str, str], Key] = {}
    for operation in operations:
        if operation.call not in ("save", "delete", "bad"):
            continue
        for item in operation.items:
            key = found.setdefault((operation.tenant, item.id), Key(operation.tenant, item.id))
            if operation.is_refused or operation.call == "bad":
                key.refused.add(item.digest)
            else:
                key.add(Change(operation, item, operation.began, operation.acknowledged))
    return found


@dataclass(frozen=True)
class Misread:
    """A load, or a look into the store, that returned what it must not: ``check`` names the promise that it breaks."""

    check: str
    at: float
    text: str


def misreads(operations: Sequence[Operation], keys: dict[tuple[str, str], Key], final_from: float) -> Iterator[Misread]:
    """Yield what is wrong with the loads among ``operations``; those that began at ``final_from`` or later are last."""
    for operation in operations:
        if operation.call != "load":
            continue
        key = keys.get((operation.tenant, operation.items[0].id))
        for attempt in operation.attempts:
            if attempt.status in (200, 404) and attempt.ended is not None and not attempt.note:
                if key is None:  # nobody has saved it under this tenant
                    key = Key(operation.tenant, operation.items[0].id)
                is_last = attempt.began >= final_from
                if found := judged(key, attempt.digest, attempt.began, attempt.ended, is_last):
                    yield Misread(found, attempt.ended, _told(key, attempt.digest, found, attempt.worker))


def held_wrongly(
    contents: Iterable[tuple[str, str, str]], keys: dict[tuple[str, str], Key], at: float
) -> Iterator[Misread]:
    """Yield what is wrong with ``contents`` (tenant, id, digest), all that the store holds at the end."""
    held = {(tenant, id): digest for tenant, id, digest in contents}
    for name, key in keys.items():
        digest = held.pop(name, "")
        if found := judged(key, digest, at, at, True):
            yield Misread(found, at, _told(key, digest, found, 0) + ", by the store itself")
    for tenant, id in held:
        yield Misread("wrong content", at, f"the store holds {id} of {tenant}, which nobody saved")


def judged(key: Key, digest: str, began: float, ended: float, is_last: bool) -> str:
    """Return the name of the check that a read of ``key`` fails, or ""; ``digest`` is "" for 404."""
    legal = key.legal(began, ended)
    if key.is_doubtful or digest in {value[1] if value else "" for value in legal}:
        return ""
    if not digest:
        return "lost"
    if digest in key.refused:
        return "effect of a refusal"
    return _misjudged(key, digest, legal, is_last)


def _misjudged(key: Key, digest: str, legal: list[Value], is_last: bool) -> str:
    """Name what is wrong with a content that is not legal, and was not refused."""
    if digest not in {change.item.digest for change in key.changes if not change.deletes}:
        return "wrong content"
    if digest not in {value[1] for value in key.values if value}:
        return "older wins"
    if not any(legal):
        return "resurrected"
    return "lost" if is_last else "stale"


def _told(key: Key, digest: str, check: str, worker: int) -> str:
    kinds = defaultdict(str, {"": "404"})
    by = f" at worker {worker}" if worker else ""
    last = next((one for one in reversed(key.changes) if one.acknowledged is not None), None)
    wanted = (
        f"{last.operation.call} {last.operation.number} was acknowledged at {last.acknowledged:.3f}" if last else ""
    )
    which = next((one.operation.number for one in key.changes if one.item.digest == digest and digest), None)
    got = f"the content of save {which}" if which else kinds[digest] or "a content that nobody saved"
    return f"{key.id} of {key.tenant}{by}: {got}; the last, {wanted}"
