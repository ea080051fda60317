"""Disks that fail, fill up, freeze or take no writes. The shim (tests.chaos.shim) answers for the disk; one is mounted."""

import contextlib
import ctypes
import errno
import os
import resource
import subprocess

from tests.chaos.faults import FILE, SQLITE, Fault, fault
from tests.chaos.shim import ALL_CALLS, CHANGES, Rule, Shim
from tests.support.waiting import pass_time

_CALLS = {
    SQLITE: ("write", "sync", "create", "resize", "unlink", "open"),
    FILE: ("write", "sync", "create", "rename", "link", "unlink", "mkdir", "open"),
}
_ERRORS = ("EIO", "ENOSPC", "EDQUOT")
_LOADED = (200, 404)
_SAME = {"save": (204,), "delete": (204,), "load": _LOADED}
_FAILING = {"save": (204, 503, 507), "delete": (204, 503, 507), "load": (*_LOADED, 503)}
_READ_ONLY = {"save": (204, 503), "delete": (204, 503), "load": _LOADED}
_FROZEN = {"save": (204, 503), "delete": (204, 503), "load": (*_LOADED, 503)}
_LIMITED = {"save": (204, 507), "delete": (204, 507), "load": _LOADED}
_FULL = {"save": (204, 507), "delete": (204,), "load": _LOADED}
_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS


class ShimFault(Fault):
    """A fault that the shim injects: ``rule_of`` a step says which calls meet what, as long as the step lasts."""

    stores = (SQLITE, FILE)
    needs = ("gcc",)
    every = (1.0, 3.0)

    def prepare(self, subject):
        shim = subject.memory["shim"] = Shim(subject.store.path.parent, subject.folder, records=False)
        subject.environment |= shim.environment()

    def inject(self, subject, step):
        shim = subject.memory["shim"]
        shim.inject(0, self.rule_of(subject, step))
        pass_time(step.lasts, "the fault lasts as long as the schedule says")
        shim.heal()
        return f"{shim.hits(0)} calls"

    def finish(self, subject):
        subject.memory["shim"].heal()

    def rule_of(self, subject, step) -> Rule:
        raise NotImplementedError


@fault
class CallFails(ShimFault):
    name = "io-error"
    injects = "EIO, ENOSPC or EDQUOT on the n-th write, sync, rename, link, unlink, mkdir or open, once or for a while"
    guarantees = "What fails is answered 503, or 507 for a lack of space. It succeeds as soon as the disk does."
    answers = _FAILING
    lasts = (0.5, 2.0)

    def details(self, chance):
        return {"error": chance.choice(_ERRORS), "skip": chance.randrange(20), "times": chance.choice((1, 1, 3, -1))}

    def rule_of(self, subject, step):
        call = step.choose(_CALLS[subject.store.kind])
        told = step.details
        return Rule((call,), error=getattr(errno, told["error"]), skip=told["skip"], times=told["times"])


@fault
class ReadOnly(ShimFault):
    name = "disk-read-only"
    injects = "a file system that takes no changes (EROFS), as after an error of its disk, for 1 to 4 seconds"
    guarantees = "Loads go on, changes are answered 503 and succeed as soon as the disk takes them."
    answers = _READ_ONLY
    recovers_within = 1.0
    lasts = (1.0, 4.0)

    def rule_of(self, subject, step):
        return Rule(CHANGES, error=errno.EROFS)


@fault
class Frozen(ShimFault):
    name = "disk-frozen"
    injects = "a disk that answers nothing, or no writes, for 2 to 15 seconds"
    guarantees = (
        "Every request is answered within STORAGE_STORE_TIMEOUT + 5 seconds; the receiver goes on when the disk does."
    )
    answers = _FROZEN
    recovers_within = 2.0
    every, lasts = (3.0, 6.0), (2.0, 15.0)
    sample_seconds = 30

    def rule_of(self, subject, step):
        return Rule(step.choose((CHANGES, CHANGES, ALL_CALLS)), "freeze")


@fault
class ShortWrites(ShimFault):
    name = "short-writes"
    injects = "writes that write half of what they are given, for 1 to 4 seconds"
    guarantees = "No request fails."
    answers = _SAME
    lasts = (1.0, 4.0)

    def rule_of(self, subject, step):
        return Rule(("write",), "short")


@fault
class SlowDisk(ShimFault):
    name = "disk-slow"
    injects = "syncs that take 20 to 200 milliseconds more, for 1 to 4 seconds"
    guarantees = "No request fails."
    answers = _SAME
    lasts = (1.0, 4.0)

    def details(self, chance):
        return {"milliseconds": chance.randrange(20, 201)}

    def rule_of(self, subject, step):
        return Rule(("sync",), "delay", microseconds=1000 * step.details["milliseconds"])


@fault
class FileSizeLimited(Fault):
    name = "file-size-limit"
    stores = (SQLITE, FILE)
    injects = "a limit of the size of files (RLIMIT_FSIZE) of all workers, from 4 KiB to 4 MiB, for 1 to 4 seconds"
    guarantees = "What does not fit is answered 507; what fits succeeds, loads too."
    answers = _LIMITED
    recovers_within = 1.0
    every, lasts = (1.0, 3.0), (1.0, 4.0)

    def details(self, chance):
        return {"KiB": chance.choice((4, 16, 64, 256, 1024, 4096))}

    def inject(self, subject, step):
        self._limit(subject, step.details["KiB"] << 10)
        pass_time(step.lasts, "the limit holds for as long as the schedule says")
        self._limit(subject, resource.RLIM_INFINITY)

    def finish(self, subject):
        self._limit(subject, resource.RLIM_INFINITY)

    def _limit(self, subject, most: int) -> None:
        for pid in [pid for receiver in subject.receivers for pid in receiver.workers()]:
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


@fault
class DiskFull(Fault):
    name = "disk-full"
    stores = (SQLITE, FILE)
    injects = "a full disk (a file system of 64 MiB in memory that another program fills) for 1 to 4 seconds"
    guarantees = "Loads and deletes go on, saves are answered 507; space that is freed is used within a second."
    answers = _FULL
    recovers_within = 1.0
    every, lasts = (2.0, 4.0), (1.0, 4.0)
    needs = ("mount", "umount")
    mib = 64

    def prepare(self, subject):
        """Mount the disk, which no process sees but this one and those that it starts."""
        place = subject.store.path.parent
        if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NAMESPACE):
            raise PermissionError("to mount a small disk takes root")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.mib}m", "tmpfs", place], check=True)
        subject.memory["mounted"] = place

    def inject(self, subject, step):
        ballast = subject.memory["mounted"] / "ballast"
        with open(ballast, "wb", buffering=0) as file:
            for _ in range(max(1, int(step.lasts * 4))):  # deletes may free some: the other program takes that, too
                _fill(file.fileno())
                pass_time(0.25, "the disk stays full for as long as the schedule says")
        ballast.unlink()

    def finish(self, subject):
        with contextlib.suppress(OSError):
            (subject.memory["mounted"] / "ballast").unlink()

    def tidy(self, subject):
        if place := subject.memory.get("mounted"):
            subprocess.run(["umount", "--lazy", place], check=False)


def _fill(descriptor: int) -> None:
    for size in (1 << 20, 1 << 16, 1 << 12):
        with contextlib.suppress(OSError):
            while True:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)
