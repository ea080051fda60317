"""What the stores hold of each tenant, counted now and then by a thread: to count takes long where much is kept."""

import threading
import time
from collections.abc import Callable, Mapping

from receiver.problems import Problem
from receiver.stores.contract import Store
from receiver.stores.tally import Tally, tallies
from receiver.telemetry.logs import log

_SHARE = 20  # times as long as a count took is what is waited at least until the next one


class Tallies:
    """The last count of ``stores``, taken every so many seconds (``every``) once ``begin`` was called.

    ``stores`` are by tenant, that of the rest under None.
    """

    def __init__(self, stores: Mapping[str | None, Store], every: float, clock: Callable[[], float] = time.time):
        self._stores = stores
        self._every = every
        self._clock = clock
        self.found: list[Tally] = []
        self.taken: float | None = None  # seconds since the epoch

    def begin(self) -> None:
        """Count, and go on counting, in a thread; not at all when that is never wanted."""
        if self._every:
            threading.Thread(target=self._run, name="tallies", daemon=True).start()

    def take(self) -> None:
        """Count now; of a store that does not answer, what was known before stays."""
        found: list[Tally] = []
        for store in dict.fromkeys(self._stores.values()):
            try:
                counted = list(tallies(store, int(self._clock() * 1e9)))
                self.taken = self._clock()
            except Problem as cause:
                log.warning("the states of some tenants cannot be counted at the moment: %s", cause)
                counted = self.found
            except Exception:
                log.exception("a defect")
                counted = self.found
            found += [one for one in counted if self._stores.get(one.tenant, self._stores[None]) is store]
        self.found = found

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self.take()
            time.sleep(max(self._every, _SHARE * (time.monotonic() - began)))
