"""Our own receiver whose workers fail as long as a file says so: ``python -m tests.support.failing_workers FILE serve``.

The text of FILE says how: "fork" (the system has no process left), "raise" or "die" (while the worker starts).
``FILE.forks`` gets a byte for each fork that was tried meanwhile.
"""

import errno
import os
import signal
import sys
from pathlib import Path

from receiver import commands
from receiver.server.application import Server


def main() -> None:
    how = Path(sys.argv.pop(1))
    forks, fork, load = how.with_suffix(".forks"), os.fork, Server.load

    def told() -> str:
        return how.read_text() if how.exists() else ""

    def failing_fork() -> int:
        if told():
            with open(forks, "ab") as file:
                file.write(b".")
        if told() == "fork":
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    def failing_load(server):
        if told() == "raise":
            raise MemoryError
        if told() == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return load(server)

    os.fork, Server.load = failing_fork, failing_load
    commands.main()


if __name__ == "__main__":
    main()
