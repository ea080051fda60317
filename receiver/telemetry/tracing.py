"""Notes on one request: its id, how long each stage took, its outcome and the reason for it."""

import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from receiver.idempotency import Effect

# Short, and of characters that no log needs to escape; the ids of nginx, HAProxy and Envoy qualify.
_ID = re.compile(r"[\w.:+/=@-]{1,63}", re.ASCII)


@dataclass
class Trace:
    """The notes. ``call`` is health, load, save or delete, else "other"; ``tenant`` is that of the path.

    ``stages`` holds the seconds of each stage: verify, body, open, store, seal. ``reason`` is a word for why the
    request was refused, ``cause`` the sentence.
    """

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    call: str = "other"
    tenant: str | None = None
    stages: dict[str, float] = field(default_factory=dict)
    effect: Effect | None = None
    reason: str | None = None
    cause: str | None = None
    received: int | None = None  # bytes of the body

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time spent in this context as that of the stage ``name``; times add up."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - began

    def seconds(self) -> float:
        """Return how long ago the request began."""
        return time.perf_counter() - self.began


def begin(offered: str | None) -> Trace:
    """Return the Trace of a request that begins now; its id is the one a trusted proxy ``offered``, else a new one."""
    return Trace(offered if offered and _ID.fullmatch(offered) else secrets.token_hex(16))
