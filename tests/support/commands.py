"""The command line in a process of its own."""

import os
import subprocess
import sys


def receiver(*words, cwd=None, **environ):
    """Run the command in a process of its own, with nothing but ``environ``; returns the finished process."""
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()} | environ
    command = [sys.executable, "-m", "receiver", *words]
    return subprocess.run(command, env=clean, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
