"""Counts each tenant's states from time to time, in a thread: counting a large store takes long."""

import threading
import time
from collections.abc import Callable, Mapping

from receiver.problems import Problem
from receiver.stores.contract import Store
from receiver.stores.tally import Tally, tallies
from receiver.telemetry.logs import log

_SHARE = 20  # the pause is at least so many times as long as the last count took


class Tallies:
    """The last count of ``stores``, repeated every ``every`` seconds once ``begin`` was called.

    ``stores`` are by tenant; None is the key of the store for all other tenants.
    """

    def __init__(
        self, stores: Mapping[str | None, Store], every: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._stores = stores
        self._every = every
        self._clock = clock
        self.found: list[Tally] = []
        self.taken: float | None = None  # seconds since the epoch

    def begin(self) -> None:
        """Count in a thread from now on; do nothing when ``every`` is 0."""
        if self._every:
            threading.Thread(target=self._run, name="tallies", daemon=True).start()

    def take(self) -> None:
        """Count now. A store that does not answer keeps its last count."""
        found: list[Tally] = []
        for store in dict.fromkeys(self._stores.values()):
            try:
                counted = list(tallies(store, int(self._clock() * 1e9)))
                self.taken = self._clock()
            except Problem as cause:
                log.warning("the states of some tenants cannot be counted at the moment: %s", cause)
                counted = self.found
            except Exception:  # noqa: BLE001 - a defect of one store must not end the counting of the others
                log.exception("a defect")
                counted = self.found
            found += [one for one in counted if self._stores.get(one.tenant, self._stores[None]) is store]
        self.found = found

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self.take()
            time.sleep(max(self._every, _SHARE * (time.monotonic() - began)))
