"""Removes the states of a run from the receiver, in the largest requests it accepts, and finds out what stayed."""

import contextlib
import http.client
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from receiver.conformance.target import RecordingClient, Target
from receiver.mock_platform.json_values import JSON

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LARGEST = 200  # ids in one DELETE; fewer once the receiver refuses that many
_SECONDS = 30.0  # for all of the cleaning, so that an interrupted run ends
_LOOKING = 10.0  # of these, for the second look
_SILENCE = 10.0  # seconds that one request may wait
_ATTEMPTS = 3  # if the receiver does not answer, or answers 503
_PAUSE = 0.3
_NOT_SERVED = (400, 401, 403, 404)


@dataclass
class Left:
    """The states, (tenant, id), that may still be in the store, and ``why``: each reason once, in words."""

    states: list[tuple[str, str]] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    def message(self, most: int = 20) -> str:
        """Return a sentence that names up to ``most`` of the states left; "" if there are none."""
        if not self.states:
            return ""
        count = len(self.states)
        named = [f"{tenant}/{id}" for tenant, id in self.states[:most]]
        named += [f"and {count - most} more"] if count > most else []
        states = f"{count} state{'' if count == 1 else 's'} may be left in the store ({'; '.join(self.why)})"
        return f"{states}, tenant/id: {', '.join(named)}"

    def add(self, tenant: str, ids: Sequence[str], why: str) -> None:
        """Record that ``ids`` of ``tenant``, if any, may be left."""
        if not ids:
            return
        self.states += [(tenant, id) for id in ids]
        if why not in self.why:
            self.why.append(why)


def clean(
    target: Target, made: Iterable[tuple[JSON, JSON]], seconds: float = _SECONDS, all_refused: bool = False
) -> Left:
    """Delete the states ``made``, (tenant, id), and return those that may still be in the store.

    ``all_refused`` means that the receiver refused every save: if it refuses the DELETE too, nothing is left.
    Takes at most ``seconds`` and one more request. After a second interrupt the remaining states count as left.
    """
    left, deadline = Left(), time.monotonic() + seconds
    own = target.tenant.lower()
    waiting = _by_tenant(made)
    serves = True
    try:
        for tenant in sorted(
            waiting, key=lambda tenant: tenant != own
        ):  # own tenant first: the receiver may not serve the other
            with contextlib.closing(_Cleaner(target, tenant, deadline, left, waiting[tenant])) as cleaner:
                # A receiver that serves its own tenant and refuses the other one stored nothing for the other.
                serves = cleaner.remove(may_refuse=all_refused or (tenant != own and serves))
    except KeyboardInterrupt:
        for tenant, ids in waiting.items():
            left.add(tenant, ids, "the run was interrupted again")
    return left


def _by_tenant(made: Iterable[tuple[JSON, JSON]]) -> dict[str, list[str]]:
    """Return the ids by tenant, each once and in lower case. What is not a UUID was never stored."""
    found: dict[str, dict[str, None]] = {}
    for pair in made:
        tenant, id = (text.lower() if isinstance(text, str) else "" for text in pair)
        if _UUID.fullmatch(tenant) and _UUID.fullmatch(id):
            found.setdefault(tenant, {})[id] = None
    return {tenant: list(ids) for tenant, ids in found.items()}


class _Cleaner:
    """Deletes states of one ``tenant``; ``waiting`` holds the ids still to delete."""

    def __init__(self, target: Target, tenant: str, deadline: float, left: Left, waiting: list[str]) -> None:
        self.client: RecordingClient = target.connect(tenant, lambda *_: None)
        self.client.connection.timeout = min(target.timeout, _SILENCE)
        self.tenant, self.deadline, self.left = tenant, deadline, left
        self.waiting = waiting
        self.size = self.most = _LARGEST

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def remove(self, may_refuse: bool) -> bool:
        """Delete the waiting states and check that they are gone; return whether the receiver serves the tenant.

        With ``may_refuse``, a refusal of the first DELETE means that the store has none of them.
        """
        ids, serves = list(self.waiting), False
        while self.waiting and not self._is_late():
            some = self.waiting[: self.size]
            status = self._delete(some)
            if status == 204:
                serves = True
                self._took(some)
            elif may_refuse and not serves and status in _NOT_SERVED:
                self.waiting.clear()
                return False
            elif status in (0, 503):
                self._give_up("no answer came to a DELETE" if status == 0 else "a DELETE was answered 503")
            else:
                self._refused(some, status)
        self._give_up("there was no time left")
        self._look_again(ids)
        return serves

    def _took(self, some: list[str]) -> None:
        del self.waiting[: len(some)]
        self.size = min(2 * self.size, self.most)

    def _refused(self, some: list[str], status: int) -> None:
        """Halve the next request: 413 limits every later request, and another status may concern a single state."""
        self.size = max(1, len(some) // 2)
        if status == 413:
            self.most = self.size
        if len(some) == 1:
            self.left.add(self.tenant, some, f"a DELETE was answered {status}")
            del self.waiting[0]

    def _give_up(self, why: str) -> None:
        self.left.add(self.tenant, self.waiting, why)
        self.waiting.clear()

    def _delete(self, ids: list[str]) -> int:
        """Return the status of a DELETE of ``ids`` after a few attempts; 0 if no answer came."""
        status = 0
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE * attempt)
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = self.client.delete(ids).status
                if status != 503:
                    break
            if self._is_late():
                break
        return status

    def _look_again(self, ids: list[str]) -> None:
        """Delete again what a GET still finds: a save in flight may have arrived after the first DELETE."""
        reported = {id for tenant, id in self.left.states if tenant == self.tenant}
        until = min(self.deadline, time.monotonic() + _LOOKING)
        for id in ids:
            if time.monotonic() > until:
                return
            if id not in reported and self._is_there(id):
                self._delete([id])
                if self._is_there(id):
                    self.left.add(self.tenant, [id], "a DELETE was answered 204, but the state is still there")

    def _is_there(self, id: str) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.client.load(id).status == 200
        return False

    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline
