"""What one input may cost: 100 ms of processor time, 64 MB above what the process had before it."""

import json
import math
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 0.1
MEMORY = 64 << 20  # bytes
_PAGE = resource.getpagesize()


class TooDear(AssertionError):
    """An input cost more than any may."""


class Measured:
    """A target that raises TooDear; the slowest input is kept in ``found``, and in the file ``report`` if one is named.

    After ``last`` seconds of CPU libFuzzer is told to end.

    An input that takes too long is tried again before it counts: this process's collector of garbage and
    libFuzzer's own work fall on some input by chance.
    """

    def __init__(self, target: Callable[[bytes], None], report: Path | None = None, last: float = math.inf):
        self.target, self.report, self.last = target, report, time.process_time() + last
        self.found = {"seconds": 0.0, "input": "", "grown": 0}

    def __call__(self, data: bytes) -> None:
        """Try ``data``."""
        if time.process_time() > self.last:
            os.kill(os.getpid(), signal.SIGUSR1)
        before, peak = _resident(), _peak()
        seconds = self._seconds(data)
        if seconds > self.found["seconds"]:
            seconds = min(seconds, self._seconds(data))
        grown = _peak() - before if _peak() > peak else 0
        slower = seconds > self.found["seconds"]
        if slower or grown > self.found["grown"]:
            if slower:
                self.found |= {"seconds": seconds, "input": data[:200].decode("latin-1")}
            self.found["grown"] = max(grown, self.found["grown"])
            if self.report:
                self.report.write_text(json.dumps(self.found))
        if seconds > SECONDS:
            raise TooDear(f"{1000 * seconds:.0f} ms")
        if grown > MEMORY:
            raise TooDear(f"{grown >> 20} MB")

    def _seconds(self, data: bytes) -> float:
        began = time.thread_time()
        self.target(data)
        return time.thread_time() - began


def _resident() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
