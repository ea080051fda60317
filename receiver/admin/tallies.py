"""What the stores hold of each tenant, counted now and then by a thread: to count takes long where much is kept."""

import threading
import time
from collections.abc import Callable

from receiver.logs import log
from receiver.problems import Problem
from receiver.stores import Store
from receiver.stores.tally import Tally, tallies

_SHARE = 20  # times as long as a count took is what is waited at least until the next one


class Tallies:
    """The last count of ``store``, taken every so many seconds (``every``) once ``begin`` was called."""

    def __init__(self, store: Store, every: float, clock: Callable[[], float] = time.time):
        self._store = store
        self._every = every
        self._clock = clock
        self.found: list[Tally] = []
        self.taken: float | None = None  # seconds since the epoch

    def begin(self) -> None:
        """Count, and go on counting, in a thread; not at all when that is never wanted."""
        if self._every:
            threading.Thread(target=self._run, name="tallies", daemon=True).start()

    def take(self) -> None:
        """Count now; what was known before stays when the store does not answer."""
        try:
            found = list(tallies(self._store, int(self._clock() * 1e9)))
        except Problem as cause:
            log.warning("the states of tenants are not counted for now: %s", cause)
        except Exception:
            log.exception("a defect")
        else:
            self.found, self.taken = found, self._clock()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self.take()
            time.sleep(max(self._every, _SHARE * (time.monotonic() - began)))
