"""What the kernel knows of processes: their CPU time and their memory, from its clocks and from /proc."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` has started and that still run."""
    return [int(one) for path in Path(f"/proc/{pid}/task").glob("*/children") for one in path.read_text().split()]


def family(pid: int) -> list[int]:
    """Return ``pid`` and its children: a server's master and its workers."""
    return [pid, *children(pid)]


def cpu(pid: int) -> float:
    """Return the seconds of CPU that the process has taken, threads that have ended included.

    Of Linux's CPU clock of a process, in nanoseconds (clock_getcpuclockid(3)); schedstat lags behind it by up to a
    tick of the scheduler, and stat counts only hundredths.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK


def cpu_of(pids: Iterable[int]) -> dict[int, float]:
    """Return pid → seconds of CPU of those of ``pids`` that still run."""
    found = {}
    for pid in pids:
        try:
            found[pid] = cpu(pid)
        except FileNotFoundError:
            continue
    return found


def owners(port: int, pids: Iterable[int]) -> dict[int, int]:
    """Return the peer's port → which of ``pids`` accepted it, of all connections to ``port`` of 127.0.0.1."""
    peers = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].partition(":")[2], 16) == port:
            peers[f"socket:[{fields[9]}]"] = int(fields[2].partition(":")[2], 16)
    found = {}
    for pid in pids:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                peer = peers.get(os.readlink(file))
                if peer:
                    found[peer] = pid
    return found


def memory(pid: int, *names: str, file: str = "status") -> int:
    """Return the bytes that the fields ``names`` (VmRSS, VmHWM; Pss of smaps_rollup) of the process sum up to."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.partition(":")[0] in names)


def forget_peak(pid: int) -> int:
    """Let the process's peak of memory begin anew; return its resident bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory(pid, "VmRSS")


def end(pid: int) -> None:
    """Ask the process to end: a worker that its master then replaces."""
    os.kill(pid, signal.SIGTERM)
