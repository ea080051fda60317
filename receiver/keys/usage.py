"""When each key was used last: noted by requests at the cost of a dict's entry, handed to the store by a thread."""

import threading
from collections.abc import Callable, Mapping

from receiver.problems import Problem
from receiver.telemetry.logs import log

FIRST, EVERY = 1.0, 60.0  # seconds until the first write, and between two

Uses = Mapping[tuple[str, str], int]  # (role, kid in lower case) → seconds since the epoch


class KeyUses:
    """The last use of each key in this process. A worker's own: its thread begins with the first note after the fork.

    What is noted within ``every`` seconds before the end of the process is lost: no end of a process waits for a store.
    """

    def __init__(self, every: float = EVERY):
        self._every = every
        self._newest: dict[tuple[str, str], int] = {}
        self._told: dict[tuple[str, str], int] = {}
        self._tell: Callable[[Uses], None] | None = None
        self._starting = threading.Lock()

    def set_sink(self, tell: Callable[[Uses], None]) -> None:
        """Let ``tell`` (a store's ``note_key_uses``) have what is new, soon and then every minute at most."""
        self._tell = tell

    def note(self, role: str, kid: str, now: float) -> None:
        """Note that the key of ``role`` with ``kid`` served a proven request at ``now``, seconds since the epoch."""
        self._newest[role, kid.lower()] = int(now)
        if self._tell is not None and self._starting.acquire(blocking=False):  # never released: one thread
            threading.Thread(target=self._run, name="key uses", daemon=True).start()

    def flush(self) -> None:
        """Hand on what was noted since the last time that this went well; raises what the store does."""
        newest = dict(self._newest)  # in one step: requests note meanwhile
        news = {key: used for key, used in newest.items() if self._told.get(key) != used}
        if news and self._tell is not None:
            self._tell(news)
            self._told = newest

    def _run(self) -> None:
        pause = threading.Event()
        pause.wait(min(FIRST, self._every))  # a request has several keys
        while True:
            try:
                self.flush()
            except Problem as cause:  # the next time will tell it as well
                log.info("when keys were used is noted later: %s", cause)
            except Exception:
                log.exception("a defect")
            pause.wait(self._every)
