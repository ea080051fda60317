"""Simulates many users at once: they start runs, step, vote, and join each other's runs from other regions.

At the end every state is read back. A save that the store acknowledged but does not have is lost.
"""

import random
import threading
import time
from datetime import datetime

from receiver.mock_platform.json_values import JSONObject
from receiver.mock_platform.model import Refusal, Tenant
from receiver.mock_platform.runtime import Runtime, Visitor

_COUNTRIES = ("US", "CA", "DE", "FR", "GB", "AU", "SG", "JP", "BR", "ZA")
_PAUSE = 0.05  # seconds between two actions of a user, at most


class Crowd:
    """``users`` of ``tenant`` who act for ``seconds``, each in a thread."""

    def __init__(self, runtime: Runtime, tenant: Tenant, users: int, seconds: float, seed: int = 0) -> None:
        self.runtime, self.tenant, self.seconds, self.seed = runtime, tenant, seconds, seed
        self._until = time.monotonic() + seconds
        self._newest: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._saves = self._refused = 0
        self._reasons: dict[str, int] = {}
        self._lost: list[str] | None = None
        self._users = [threading.Thread(target=self._use, args=(number,), daemon=True) for number in range(users)]
        self._verifier = threading.Thread(target=self._read_back, daemon=True)
        for thread in (*self._users, self._verifier):
            thread.start()

    def wait(self) -> None:
        """Wait until all users have stopped and every state has been read back."""
        self._verifier.join()

    def end(self) -> None:
        """Stop the users, each after their current action, and wait."""
        self._until = time.monotonic()
        self.wait()

    @property
    def is_running(self) -> bool:
        """Whether users are still active or states are being read back."""
        return self._verifier.is_alive()

    def report(self) -> dict[str, object]:
        """Return the counts so far; ``lost`` and the final ``verdict`` are known at the end."""
        with self._lock:
            lost = None if self._lost is None else len(self._lost)
            verdict = "running" if self.is_running else "no save lost" if lost == 0 else "saves were lost"
            return {
                "users": len(self._users),
                "runs": len(self._newest),
                "saves": self._saves,
                "refused": self._refused,
                "reasons": dict(self._reasons),
                "lost": lost,
                "verdict": verdict,
            }

    def _use(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")  # noqa: S311 - made-up behaviour, not a secret
        mine: str | None = None
        while time.monotonic() < self._until:
            visitor = Visitor(chance.choice(_COUNTRIES))
            try:
                if mine is None or chance.random() < 0.1:
                    done = self.runtime.start(self.tenant, chance.choice(list(self.tenant.flows)), visitor)
                    mine = done["stateId"]
                else:
                    done = self._act(chance, chance.choice([mine, mine, self._any(chance, mine)]), visitor)
                self._note(done)
                if done["isDone"]:
                    mine = None
            except Refusal as refusal:
                mine = self._refuse(refusal, mine)
            time.sleep(chance.random() * _PAUSE)

    def _act(self, chance: random.Random, id: str, visitor: Visitor) -> JSONObject:
        action = chance.choices(("step", "join", "vote", "finish"), (12, 3, 3, 1))[0]
        return self.runtime.act(self.tenant, id, action, visitor, chance.choice(("yes", "no")))

    def _any(self, chance: random.Random, otherwise: str) -> str:
        with self._lock:
            return chance.choice(list(self._newest) or [otherwise])

    def _note(self, done: JSONObject) -> None:
        moment = datetime.fromisoformat(done["updatedAt"])
        with self._lock:
            self._saves += 1
            self._newest[done["stateId"]] = max(moment, self._newest.get(done["stateId"], moment))

    def _refuse(self, refusal: Refusal, mine: str | None) -> str | None:
        if refusal.status == 409:  # another user has finished that run
            return None
        with self._lock:
            self._refused += 1
            reason = str(refusal) if len(self._reasons) < 20 else "other"
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
        return mine

    def _read_back(self) -> None:
        for user in self._users:
            user.join()
        for channel in self.runtime.platform.channels():
            channel.deliver_late()
        lost = [id for id, newest in self._newest.items() if not self._has(id, newest)]
        with self._lock:
            self._lost = lost

    def _has(self, id: str, newest: datetime) -> bool:
        try:
            found = self.runtime.look(self.tenant, id)
        except Refusal:
            return False
        return datetime.fromisoformat(found["updatedAt"]) >= newest
