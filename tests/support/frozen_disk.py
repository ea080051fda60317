"""A disk that freezes and thaws, for processes that start with the shim ``frozen_disk.c`` under LD_PRELOAD."""

import contextlib
import functools
import subprocess
import tempfile
from pathlib import Path

from tests.support.servers import needed

SOURCE = Path(__file__).with_suffix(".c")


@functools.cache
def shim():
    """Return the path of the library, built once for this process."""
    needed("cc")
    path = Path(tempfile.mkdtemp(prefix="frozen-")) / "frozen_disk.so"
    command = ["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(path), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return path


class FrozenDisk:
    """The disk of the folder ``path``, as processes with the variables ``environment`` see it."""

    def __init__(self, path: Path, control: Path) -> None:
        self.path, self.control = path, control
        path.mkdir(exist_ok=True)
        self.environment = {
            "LD_PRELOAD": str(shim()),
            "FROZEN_FOLDER": str(path),
            "FROZEN_WHILE": str(control),
        }

    @contextlib.contextmanager
    def frozen(self, writes_only=False):
        """Let calls on the folder wait meanwhile, or ``writes_only``."""
        control = self.control.with_name(f"{self.control.name}-writes") if writes_only else self.control
        control.touch()
        try:
            yield
        finally:
            control.unlink(missing_ok=True)
