"""What must be in a store after a power cut: the marks before it, and what each allows."""

import json
from collections import defaultdict

from tests.chaos.powercut.workload import Change, is_expiring

Versions = set[int | None]  # of a key; None: it is not there


class History:
    """The marks that have been seen so far."""

    def __init__(self) -> None:
        self.allowed: dict[tuple[str, int], Versions] = {}  # (worker, key) → the versions that may be found
        self.newest: dict[str, dict[int, int]] = defaultdict(dict)  # worker → key → the newest version that was sent
        self.open: dict[str, tuple[Change, dict[int, Versions]]] = {}  # worker → its change under way, what was before
        self.last: dict[str, int] = defaultdict(int)  # worker → the number of its last change
        self.acknowledged = self.acknowledged_states = 0
        self.receipts: list[Change] = []  # those of acknowledged changes
        self.failures: list[str] = []

    def see(self, text: bytes) -> None:
        """Take a mark into account."""
        mark = json.loads(text)
        getattr(self, f"_{mark['t']}")(mark)

    def _begin(self, mark: dict) -> None:
        items = [(key, version) for key, version in mark["items"]]
        change = Change(mark["w"], mark["n"], mark["call"], items, mark["jti"])
        self._failed(mark)  # one that a killed process left
        before = {key: set(self.allowed.get((change.worker, key), {None})) for key, _ in items}
        self.open[change.worker] = change, before
        self.last[change.worker] = max(self.last[change.worker], change.number)
        if change.call == "purge":
            for (_, key), versions in self.allowed.items():
                if is_expiring(key):
                    versions.add(None)
        for key, version in items if change.call == "save" else ():
            self.newest[change.worker][key] = max(version, self.newest[change.worker].get(key, 0))

    def _failed(self, mark: dict) -> None:
        """What failed, or was killed, may have been done or not."""
        if mark["w"] in self.open:
            change, before = self.open.pop(mark["w"])
            for key, version in change.items:
                self.allowed[change.worker, key] = before[key] | after(change.call, version, before[key])
        if "error" in mark:
            self.failures.append(mark["error"])

    def _acknowledged(self, mark: dict) -> None:
        change, before = self.open.pop(mark["w"])
        self.acknowledged += 1
        self.acknowledged_states += len(change.items) if change.call == "save" else 0
        for key, version in change.items:
            now = after(change.call, version, before[key])
            if self._was_done(change):  # a request that is repeated has no second effect
                now = before[key]
            self.allowed[change.worker, key] = now | ({None} if is_expiring(key) else set())
        if change.jti:
            self.receipts.append(change)

    def _was_done(self, change: Change) -> bool:
        return bool(change.jti) and any(
            one.jti == change.jti for one in self.receipts[-400:] if one.worker == change.worker
        )


def after(call: str, version: int, before: Versions) -> Versions:
    """Return what may be there after a change of what may have been there ``before``."""
    if call == "delete":
        return {None}
    return {version if found is None or found <= version else found for found in before}
