"""Small disks, each in a mount namespace of its own that ends with the process that uses it."""

import ctypes
import os
import subprocess

import pytest

from tests.support.filesystem import exit_code, forked

KINDS = ("tmpfs", "ext4")
_NEW_MOUNT_NAMESPACE, _NO_MOUNT = 0x00020000, 77


def on_a_small_disk(path, action, kind="tmpfs", size="1m"):
    """Do ``action`` in a process of its own that sees a small disk at ``path``; only root can make one."""
    image = path.with_name(f"{path.name} image")

    def run():
        if ctypes.CDLL(None).unshare(_NEW_MOUNT_NAMESPACE):
            os._exit(_NO_MOUNT)
        commands = [["mount", "--make-rprivate", "/"]]
        if kind == "ext4":
            with open(image, "wb") as file:
                file.truncate(8 << 20)
            commands += [["mkfs.ext4", "-q", "-N", "512", image], ["mount", "-o", "loop", image, path]]
        else:
            commands += [["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=512", "small", path]]
        if any(subprocess.run(command, check=False).returncode for command in commands):
            os._exit(_NO_MOUNT)
        action()

    path.mkdir()
    code = exit_code(forked(run))
    if code == _NO_MOUNT:
        pytest.skip("a small disk can only be made by root")
    assert code == 0
