"""When each key was last used. Noting it costs a request one dict entry; a thread hands the notes to the store."""

import threading
from collections.abc import Callable, Mapping

from receiver.problems import Problem
from receiver.telemetry.logs import log

FIRST, EVERY = 1.0, 60.0  # seconds until the first write, and between two

Uses = Mapping[tuple[str, str], int]  # (role, kid in lower case) → seconds since the epoch


class KeyUses:
    """The last use of each key in this process. Each worker has its own; the first note after the fork starts a thread.

    Notes of the last ``every`` seconds before the process ends are lost: the end of a process waits for no store.
    """

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._newest: dict[tuple[str, str], int] = {}
        self._handed_on: dict[tuple[str, str], int] = {}
        self._sink: Callable[[Uses], None] | None = None
        self._starting = threading.Lock()

    def set_sink(self, sink: Callable[[Uses], None]) -> None:
        """Hand new notes to ``sink`` (a store's ``note_key_uses``), soon and then once a minute at most."""
        self._sink = sink

    def note(self, role: str, kid: str, now: float) -> None:
        """Note that the key of ``role`` with ``kid`` served a proven request at ``now``, seconds since the epoch."""
        self._newest[role, kid.lower()] = int(now)
        if self._sink is not None and self._starting.acquire(blocking=False):  # never released: one thread
            threading.Thread(target=self._run, name="key uses", daemon=True).start()

    def flush(self) -> None:
        """Hand on what was noted since the last success; raises what the sink raises."""
        newest = dict(self._newest)  # copied in one step, because requests go on noting
        news = {key: used for key, used in newest.items() if self._handed_on.get(key) != used}
        if news and self._sink is not None:
            self._sink(news)
            self._handed_on = newest

    def _run(self) -> None:
        pause = threading.Event()
        pause.wait(min(FIRST, self._every))  # a request uses several keys
        while True:
            try:
                self.flush()
            except Problem as cause:  # the next round hands it on
                log.info("the times of last use are noted later: %s", cause)
            except Exception:  # noqa: BLE001 - the one thread that notes uses must go on
                log.exception("a defect")
            pause.wait(self._every)
