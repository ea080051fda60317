"""What is noted of a request on its way: its id, how long each room took, what came of it and why."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from receiver.idempotency import Effect

# Short enough, and made of what no log needs to escape; those of nginx, HAProxy and Envoy are.
_ID = re.compile(r"[\w.:+/=@-]{1,63}", re.ASCII)


@dataclass
class Trace:
    """Of one request. ``call`` is health, load, save or delete, else "other"; ``tenant`` is that of the path.

    ``rooms`` tells seconds by room: verify, body, open, store, seal. ``reason`` is a word for why it was refused,
    ``cause`` the sentence.
    """

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    call: str = "other"
    tenant: str | None = None
    rooms: dict[str, float] = field(default_factory=dict)
    effect: Effect | None = None
    reason: str | None = None
    cause: str | None = None
    received: int | None = None  # bytes of the body

    @contextmanager
    def room(self, name: str) -> Iterator[None]:
        """Note how long what is done in this context takes as the time of the room ``name``; times add up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.rooms[name] = self.rooms.get(name, 0.0) + time.perf_counter() - began

    def seconds(self) -> float:
        """Return how long ago the request began."""
        return time.perf_counter() - self.began


def begin(offered: str | None) -> Trace:
    """Return the Trace of a request that begins now; its id is what a trusted proxy ``offered``, else a new one."""
    return Trace(offered if offered and _ID.fullmatch(offered) else secrets.token_hex(16))
