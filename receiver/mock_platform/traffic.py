"""Records the calls to the receivers, for the page and for tests. Holds no keys, tokens or contents."""

import itertools
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass

from receiver.mock_platform.json_values import JSON, JSONObject

_KEPT = 1_000


@dataclass(frozen=True)
class Call:
    """One attempt of a call to a store; ``status`` is None without an answer."""

    number: int
    at: float
    store: str
    call: str
    states: int
    id: str
    attempt: int
    status: int | None
    bytes: int
    milliseconds: float
    note: str


class Traffic:
    """The latest calls. Thread-safe."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=_KEPT)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()

    def note(self, **fields: JSON) -> None:
        """Record a call; ``fields`` are those of Call except ``number`` and ``at``."""
        with self._lock:
            call = Call(next(self._numbers), time.time(), **fields)
            self._calls.append(call)
            self.statuses[str(call.status or "no answer")] += 1

    def after(self, number: int = 0, most: int = 200) -> list[JSONObject]:
        """Return the latest calls with a number above ``number``, oldest first, at most ``most`` of them."""
        with self._lock:
            newer = [call for call in self._calls if call.number > number]
        return [asdict(call) for call in newer[-most:]]

    def counts(self) -> dict[str, int]:
        """Return how often each status has come since the start."""
        with self._lock:
            return dict(self.statuses)
