"""How far a receiver is on its way from start to end, known to its master and to all processes that it started."""

import mmap
import struct
import time

from receiver.telemetry.log_losses import Losses

_ACCEPTED, _REFUSAL = slice(64, 96), slice(128, 1024)  # where a digest stands, and a text
_FORM = struct.Struct("<dIB")  # when the master was seen last, workers that run, stage
_SERVING, _DRAINING, _STOPPING = range(3)
_SILENT = 60.0  # seconds without a sign of the master until it counts as hung


class Lifecycle:
    """What the master tells its workers and the admin listener: shared memory, made before any of them is forked.

    Draining: requests are answered as ever, but readiness fails and connections are closed behind their reply, so that
    balancers and proxies look elsewhere. Stopping: nothing new is taken.
    """

    def __init__(self):
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self.losses = Losses()
        self.beat(0)

    def beat(self, workers: int) -> None:
        """Say that the master goes round, and that so many ``workers`` run."""
        self._put(time.monotonic(), workers, self._stage)

    def accept(self, digest: bytes) -> None:
        """Say that the master has taken keys and certificates with this ``digest`` (32 bytes): the others follow."""
        self._shared[_ACCEPTED] = digest
        self.refuse("")

    def refuse(self, why: str) -> None:
        """Say ``why`` the master has not taken the keys and certificates that are there; "" when it has."""
        room = _REFUSAL.stop - _REFUSAL.start
        self._shared[_REFUSAL] = why.encode("utf-8", "replace")[:room].ljust(room, b"\0")

    @property
    def accepted(self) -> bytes:
        """The digest of what the master took last."""
        return self._shared[_ACCEPTED]

    @property
    def refusal(self) -> str:
        """Why the keys and certificates that are there are not in force; "" when they are."""
        return self._shared[_REFUSAL].rstrip(b"\0").decode("utf-8", "ignore")

    def drain(self) -> None:
        """Begin to drain."""
        self._put(time.monotonic(), self.workers, _DRAINING)

    def stop(self) -> None:
        """Begin to stop; the master is busy with that from now on."""
        self._put(time.monotonic(), self.workers, _STOPPING)

    @property
    def is_ending(self) -> bool:
        """Whether the receiver drains or stops."""
        return self._stage != _SERVING

    @property
    def workers(self) -> int:
        """How many workers ran when the master looked last, a second ago."""
        return _FORM.unpack_from(self._shared)[1]

    @property
    def is_well(self) -> bool:
        """Whether the master goes round. One that stops does not, and is given its time by who told it to stop."""
        seen, _, stage = _FORM.unpack_from(self._shared)
        return stage == _STOPPING or time.monotonic() - seen < _SILENT

    @property
    def _stage(self) -> int:
        return self._shared[_FORM.size - 1]

    def _put(self, seen: float, workers: int, stage: int) -> None:
        _FORM.pack_into(self._shared, 0, seen, workers, stage)
