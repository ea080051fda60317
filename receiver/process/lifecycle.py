"""The stage of a receiver between start and end, known to its master and to every process that it started."""

import mmap
import struct
import time

from receiver.telemetry.log_losses import Losses

_ACCEPTED, _REFUSAL = slice(64, 96), slice(128, 1024)  # where the digest and the text lie
_STATUS = struct.Struct("<dIB")  # when the master was last seen, how many workers run, stage
_SERVING, _DRAINING, _STOPPING = range(3)
_SILENT = 60.0  # seconds without a sign of the master after which it counts as hung


class Lifecycle:
    """What the master tells its workers and the admin listener, in shared memory that exists before the first fork.

    Draining: requests are still answered, but readiness fails and each reply closes its connection, so that load
    balancers and proxies look elsewhere. Stopping: no new connection is accepted.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self.losses = Losses()
        self.beat(0)

    def beat(self, workers: int) -> None:
        """Record that the master is alive, and how many ``workers`` run."""
        self._put(time.monotonic(), workers, self._stage)

    def accept(self, digest: bytes) -> None:
        """Record that the master uses the keys and certificates of this ``digest`` (32 bytes); the others follow."""
        self._shared[_ACCEPTED] = digest
        self.refuse("")

    def refuse(self, why: str) -> None:
        """Record ``why`` the master did not take the present keys and certificates; "" when it did."""
        size = _REFUSAL.stop - _REFUSAL.start
        self._shared[_REFUSAL] = why.encode("utf-8", "replace")[:size].ljust(size, b"\0")

    @property
    def accepted(self) -> bytes:
        """The digest of what the master accepted last."""
        return self._shared[_ACCEPTED]

    @property
    def refusal(self) -> str:
        """Why the present keys and certificates are not in use; "" when they are."""
        return self._shared[_REFUSAL].rstrip(b"\0").decode("utf-8", "ignore")

    def drain(self) -> None:
        """Begin to drain."""
        self._put(time.monotonic(), self.workers, _DRAINING)

    def stop(self) -> None:
        """Begin to stop. From now on the master sends no more signs of life."""
        self._put(time.monotonic(), self.workers, _STOPPING)

    @property
    def is_ending(self) -> bool:
        """Whether the receiver drains or stops."""
        return self._stage != _SERVING

    @property
    def workers(self) -> int:
        """How many workers ran when the master last looked, at most a second ago."""
        return self._status()[1]

    @property
    def is_well(self) -> bool:
        """Whether the master is alive. One that stops is not judged: the sender of the signal sets its time limit."""
        seen, _, stage = self._status()
        return stage == _STOPPING or time.monotonic() - seen < _SILENT

    @property
    def _stage(self) -> int:
        return self._shared[_STATUS.size - 1]

    def _status(self) -> tuple[float, int, int]:
        return _STATUS.unpack_from(self._shared)

    def _put(self, seen: float, workers: int, stage: int) -> None:
        _STATUS.pack_into(self._shared, 0, seen, workers, stage)
