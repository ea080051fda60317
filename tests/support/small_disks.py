"""Small disks that are filled to the last block, seen by one process only, in a mount namespace of its own."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.filesystem import exit_code, forked

_NEW_MOUNT_NAMESPACE, _NO_MOUNT = 0x00020000, 77
KINDS = ("tmpfs", "ext4")


def on_a_small_disk(path: Path, kind: str, mebibytes: int, action, inodes: int = 0) -> None:
    """Do ``action`` in a process of its own that sees a disk of ``kind`` at ``path``; only root can make one."""
    path.mkdir(exist_ok=True)
    mount = ["-t", "tmpfs", "-o", f"size={mebibytes}m,nr_inodes={inodes}", "small"]
    if kind == "ext4":
        image = path.with_name(f"{path.name}.img")
        image.touch()
        os.truncate(image, mebibytes << 20)
        subprocess.run(
            ["/usr/sbin/mkfs.ext4", "-q", "-F", "-m", "0", *(["-N", str(inodes)] if inodes else []), image], check=True
        )
        mount = ["-o", "loop", image]

    def run() -> None:
        if ctypes.CDLL(None).unshare(_NEW_MOUNT_NAMESPACE):
            os._exit(_NO_MOUNT)
        for command in (["--make-rprivate", "/"], [*mount, path]):
            if subprocess.run(["mount", *command], check=False).returncode:
                os._exit(_NO_MOUNT)
        action()

    code = exit_code(forked(run))
    if code == _NO_MOUNT:
        pytest.skip("a small disk can only be made by root")
    assert code == 0


def filled(path: Path) -> Path:
    """Return a file on the disk at ``path`` that takes all of its room, to the last block."""
    filler = path / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 512, 1):
            try:
                while file.write(b"f" * size):
                    pass
            except OSError:
                continue
        os.fsync(file.fileno())
    return filler
