"""The shim that records what a process does to files, and makes such calls fail: shim.c, built when it is needed.

``Shim`` is one folder that is watched, with its control file and, if asked for, its log.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parent / "shim.c"
_EVENT = struct.Struct("=IHHIiQQQQII")
_RULE = struct.Struct("=IIIiqqqqQ136s")
_MAGIC = 0x43484153
_RULES = 16

CALLS = {"open": 1, "create": 2, "read": 4, "write": 8, "sync": 16, "rename": 32, "link": 64, "unlink": 128}
CALLS |= {"mkdir": 256, "resize": 512, "stat": 1024}
CHANGES = ("create", "write", "sync", "rename", "link", "unlink", "mkdir", "resize")
ALL_CALLS = tuple(CALLS)
_ACTIONS = {"fail": 1, "freeze": 2, "short": 3, "drop": 4, "delay": 5}
KINDS = (
    *("", "create", "resize", "write", "rename", "link", "unlink", "mkdir", "rmdir"),
    *("sync begins", "sync ends", "mark", "index", "unknown"),
)


class Event(NamedTuple):
    """One event of the log, in the order in which things happened.

    ``path`` is below the watched folder, "/" first; "" is that folder. ``inode`` is the file's, or the folder's.
    ``a`` is the offset of a write, the new size, or the number that both events of a sync share. ``data`` is what was
    written, the other path of a rename or link, or the text of a mark. Of the end of a sync, ``error`` is its errno
    and ``b`` says whether what it held is gone.
    """

    kind: str
    process: int
    error: int
    inode: int
    a: int
    b: int
    nanoseconds: int
    path: str
    data: bytes


def events(log: Path) -> Iterator[Event]:
    """Yield the events of ``log``."""
    with open(log, "rb") as file:
        while header := file.read(_EVENT.size):
            magic, kind, _, process, error, inode, a, b, at, first, second = _EVENT.unpack(header)
            if magic != _MAGIC:
                raise ValueError("the log of the shim is damaged")
            path = os.fsdecode(file.read(first))
            yield Event(KINDS[kind], process, error, inode, a, b, at, path, file.read(second))


def is_available() -> bool:
    """Whether the shim can be built here."""
    return shutil.which("gcc") is not None


@cache
def library() -> Path:
    """Build the shim, once in a process, and return its path."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-shim-"))
    built = folder / "shim.so"
    if inherited := os.environ.get("CHAOS_SHIM_LIBRARY"):
        return Path(inherited)
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-U_FORTIFY_SOURCE"]
    subprocess.run([*command, "-o", built, SOURCE, "-ldl", "-lpthread"], check=True, capture_output=True, text=True)
    return built


class Rule(NamedTuple):
    """A fault: ``calls`` (of CALLS) on paths with ``match`` in them ("$" at its end: a suffix) meet ``action``.

    The first ``skip`` of them pass, then it takes effect on ``times`` of them; -1: until it is healed.
    "fail" ends with ``error``; "drop", of syncs, also loses what was to be synced; "short" writes half; "delay" takes
    ``microseconds`` more; "freeze" blocks until the rule is healed.
    """

    calls: tuple[str, ...]
    action: str = "fail"
    error: int = errno.EIO
    skip: int = 0
    times: int = -1
    match: str = ""
    microseconds: int = 0


class Shim:
    """What is below ``root`` is watched; control file and log lie in the folder ``beside``, which is elsewhere."""

    def __init__(self, root: Path, beside: Path, records: bool = True) -> None:
        self.root = root.resolve()
        self.control = beside / "shim.control"
        self.log = beside / "shim.log" if records else None
        self._code = ctypes.CDLL(str(library()))
        if self._code.chaos_make_control(os.fsencode(self.control)):
            raise OSError(f"{self.control}: cannot be made")
        self._first, size = self._code.chaos_rule_offset(), self._code.chaos_rule_size()
        if size != _RULE.size:
            raise ValueError("shim.c has another layout")
        with open(self.control, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process is started to be watched."""
        found = {"LD_PRELOAD": str(library()), "CHAOS_SHIM_LIBRARY": str(library())}
        found |= {"CHAOS_SHIM_ROOT": str(self.root), "CHAOS_SHIM_CONTROL": str(self.control)}
        return found | ({"CHAOS_SHIM_LOG": str(self.log)} if self.log else {})

    def join(self) -> None:
        """Let this process write marks and kill watched ones; what it does to files is not recorded."""
        log = os.fsencode(self.log) if self.log else b""
        if self._code.chaos_join(os.fsencode(self.root), os.fsencode(self.control), log):
            raise OSError("the shim cannot be joined")

    def mark(self, text: bytes) -> None:
        """Add a mark to the log; after ``join``."""
        self._code.chaos_mark(text, ctypes.c_size_t(len(text)))

    def kill(self, pid: int) -> None:
        """Kill a watched process between two changes, so that the log has them all; after ``join``."""
        self._code.chaos_kill(pid)

    def inject(self, number: int, rule: Rule) -> None:
        """Set rule ``number`` (below 16), which takes effect at once."""
        calls = sum(CALLS[call] for call in set(rule.calls))
        fields = (calls, _ACTIONS[rule.action], rule.error, rule.skip, rule.times, 0, 0, rule.microseconds)
        at = self._at(number)
        self.heal(number)
        self._memory[at : at + _RULE.size] = _RULE.pack(0, *fields, os.fsencode(rule.match))
        self._memory[at : at + 4] = struct.pack("=I", 1)

    def heal(self, number: int | None = None) -> None:
        """Disable rule ``number``, or all."""
        for one in range(_RULES) if number is None else (number,):
            self._memory[self._at(one) : self._at(one) + 4] = struct.pack("=I", 0)

    def hits(self, number: int) -> int:
        """Return how many calls rule ``number`` took effect on since it was set."""
        return _RULE.unpack_from(self._memory, self._at(number))[7]

    def _at(self, number: int) -> int:
        return self._first + number * _RULE.size


@contextlib.contextmanager
def on_memory(prefix: str = "chaos-") -> Iterator[Path]:
    """A temporary folder in memory, where the system has one: tests of what a disk keeps need no disk."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)
