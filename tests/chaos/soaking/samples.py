"""What a receiver takes of its machine at a moment: memory, descriptors, threads, disk; and how fast it answers."""

import contextlib
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import processes

FIGURES = {  # name: (unit, whether growth of it is a failure)
    "rss": ("bytes", True),
    "pss": ("bytes", True),
    "descriptors": ("", True),
    "threads": ("", True),
    "wal": ("bytes", False),  # it has a bound of its own, and the receipts of 20 minutes come before it is reached
    "disk": ("bytes", False),  # likewise
    "run folder": ("bytes", True),
    "median": ("s", False),  # the machine does other things, too
    "p99": ("s", False),
}


def sample(pids: Sequence[int], store: Path, run_folder: Path, seconds: Sequence[float]) -> dict[str, float]:
    """Return the figures of the processes ``pids``, of the store in the folder ``store``, and of requests' ``seconds``."""
    found: dict[str, float] = {"at": time.monotonic()} | dict.fromkeys(FIGURES, 0.0)
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found["rss"] += processes.memory(pid, "VmRSS")
            found["pss"] += processes.memory(pid, "Pss", file="smaps_rollup")
            found["descriptors"] += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            found["threads"] += len(list(Path(f"/proc/{pid}/task").iterdir()))
    found["wal"] = size_of(store, "*-wal")
    found["disk"] = size_of(store, "*")
    found["run folder"] = size_of(run_folder, "*")
    if len(seconds) > 1:
        found["median"] = statistics.median(seconds)
        found["p99"] = statistics.quantiles(seconds, n=100)[98]
    return found


def size_of(folder: Path, pattern: str) -> int:
    """Return the bytes of disk of all files under ``folder`` with such a name."""
    total = 0
    for path in folder.rglob(pattern):
        with contextlib.suppress(FileNotFoundError):
            total += 512 * path.stat().st_blocks if path.is_file() else 0
    return total
