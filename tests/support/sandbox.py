"""Runs a program of an image as a container engine would, for machines that have none; the image is unpacked in a folder.

The program's root is that folder, read-only; it is the image's user, has no capability and cannot gain any. It sees its own
processes only, and can write to /dev/shm and /data. Not here: seccomp's filter, limits, and a network of its own.

    unshare --mount --pid --fork python sandbox.py make ROOT '{"user": …}' WORDS…
    nsenter --target PID --mount --pid python sandbox.py enter ROOT '{"user": …}' WORDS…
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

# prctl(2)
_DROP_FROM_BOUNDING_SET, _NO_NEW_PRIVILEGES = 24, 38
_DEVICES = ("null", "zero", "full", "random", "urandom")


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def _bind(source: str | Path, target: Path, writable: bool) -> None:
    _mount("--bind", source, target)
    if not writable:
        _mount("-o", "remount,bind,ro,nosuid,nodev", target)


def make(root: Path, volumes: dict[str, list]) -> None:
    """Mount what a container has: ``volumes`` is path in the container → (folder, may it be written)."""
    _bind(root, root, writable=False)
    _mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", root / "proc")
    _mount("-t", "tmpfs", "-o", "mode=755,nosuid", "tmpfs", root / "dev")
    for name in _DEVICES:
        (root / "dev" / name).touch()
        _bind(f"/dev/{name}", root / "dev" / name, writable=True)
    (root / "dev/shm").mkdir()
    _mount("-t", "tmpfs", "-o", "mode=1777,size=64m,nosuid,nodev,noexec", "shm", root / "dev/shm")
    _mount("-o", "remount,ro,nosuid", root / "dev")
    for path, (folder, writable) in volumes.items():
        _bind(folder, root / path.lstrip("/"), writable)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def enter(root: Path, how: dict, words: list[str]) -> None:
    """Become the program ``words`` in ``root``, as ``how`` says: user "uid:gid", groups, folder, environment."""
    os.chroot(root)
    os.chdir(how["folder"])
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        _prctl(_DROP_FROM_BOUNDING_SET, capability)
    user, group = map(int, how["user"].split(":"))
    os.setgroups(how["groups"])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)  # the kernel takes all capabilities away with it
    _prctl(_NO_NEW_PRIVILEGES, 1)
    program = shutil.which(words[0], path=how["environment"]["PATH"])
    if not program:
        sys.exit(f"{words[0]}: the image has no such program")
    os.execve(program, words, how["environment"])


if __name__ == "__main__":
    step, folder, told, *program = sys.argv[1:]
    if step == "make":
        make(Path(folder), json.loads(told)["volumes"])
    enter(Path(folder), json.loads(told), program)
