"""The journal: what was sent and what was answered, written by those who sent it, outside the store's disk.

One file of JSON lines for each process of the load. Every request has two lines: one before it is sent, one after it was
answered. Lines are synced in groups; ``History`` counts as acknowledged only what the journal says.
"""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"
_SYNC_EVERY = 0.2  # seconds


class Item(NamedTuple):
    """One state of an operation: its ``id``, its ``updated`` time (microseconds), the ``digest`` of its content.

    Of a load or a delete only the id counts.
    """

    id: str
    updated: int = 0
    digest: str = ""


@dataclass(slots=True)
class Attempt:
    """One request: when it ``began`` and ``ended`` (time.monotonic(), of the machine), and what came of it.

    ``digest`` is that of the content that a load returned; "" when there was none. ``note`` tells what was odd.
    ``worker`` is the process that was asked, where that is known. ``port`` is that of the client's connection, 0 when
    there was none.
    """

    began: float
    ended: float | None = None
    outcome: str = UNKNOWN
    status: int | None = None
    digest: str = ""
    note: str = ""
    worker: int = 0
    port: int = 0


@dataclass(slots=True)
class Operation:
    """What a client wanted: a ``call`` (save, load, delete, health, bad) and the attempts at it, all of one ``jti``.

    A "bad" one is a save that has to be refused.
    """

    number: int
    client: int
    call: str
    tenant: str
    items: list[Item]
    jti: str = ""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def began(self) -> float:
        return self.attempts[0].began

    @property
    def acknowledged(self) -> float | None:
        """When it was acknowledged first, or None."""
        return next((one.ended for one in self.attempts if one.outcome == ACKNOWLEDGED), None)

    @property
    def is_refused(self) -> bool:
        """Whether it was answered 4xx, and never acknowledged."""
        return self.acknowledged is None and any(one.outcome == REFUSED for one in self.attempts)


class Journal:
    """The file of one process of the load. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._syncing = threading.Thread(target=self._sync_often, daemon=True)
        self._syncing.start()

    def begin(self, operation: Operation, attempt: Attempt) -> None:
        """Write that ``attempt`` is about to be sent; the first time with all of its ``operation``."""
        operation.attempts.append(attempt)
        line = {"op": operation.number, "began": attempt.began}
        if len(operation.attempts) == 1:
            line |= {"client": operation.client, "call": operation.call, "tenant": operation.tenant}
            line |= {"items": operation.items, "jti": operation.jti}
        self._write(line | ({"worker": attempt.worker} if attempt.worker else {}))

    def end(self, operation: Operation, attempt: Attempt) -> None:
        """Write what came of ``attempt``."""
        line = {"op": operation.number, "ended": attempt.ended, "outcome": attempt.outcome, "status": attempt.status}
        more = {"digest": attempt.digest, "note": attempt.note, "port": attempt.port}
        self._write(line | {name: value for name, value in more.items() if value})

    def _write(self, line: dict) -> None:
        text = json.dumps(line, separators=(",", ":")) + "\n"
        with self._lock:
            self._file.write(text)

    def _sync_often(self) -> None:
        while not self._is_closed.wait(_SYNC_EVERY):
            self.sync()

    def sync(self) -> None:
        with self._lock:
            self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._is_closed.set()
        self._syncing.join()
        self.sync()
        self._file.close()


def read(paths: Sequence[Path]) -> list[Operation]:
    """Return the operations of the journals ``paths``, in the order in which they began."""
    found = [operation for path in paths for operation in _operations(path)]
    return sorted(found, key=lambda operation: operation.began)


def _operations(path: Path) -> Iterator[Operation]:
    open_ones: dict[int, Operation] = {}
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            number = line["op"]
            if "began" in line:
                if number not in open_ones:
                    items = [Item(*item) for item in line["items"]]
                    known = (line["client"], line["call"], line["tenant"], items, line["jti"])
                    open_ones[number] = Operation(number, *known)
                open_ones[number].attempts.append(Attempt(line["began"], worker=line.get("worker", 0)))
            else:
                last = open_ones[number].attempts[-1]
                last.ended, last.outcome, last.status = line["ended"], line["outcome"], line["status"]
                last.digest, last.note, last.port = line.get("digest", ""), line.get("note", ""), line.get("port", 0)
    yield from open_ones.values()
