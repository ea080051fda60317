"""What ran: the machine and the versions, with nothing that tells whose it is."""

import os
import platform
import re
import sqlite3
from importlib import metadata
from pathlib import Path

from sqlite_utils.utils import sqlite3 as receivers_sqlite

from receiver.jose import p384

_PACKAGES = ("gunicorn", "flask", "cryptography", "jwcrypto")


def describe() -> dict[str, object]:
    """Return name → value: processor, memory, kernel, Python, libraries, the provider of the elliptic curves."""
    cpu = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": f"Linux {platform.release().partition('-')[0]}",
        "Python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
        "SQLite": f"{receivers_sqlite.sqlite_version} (plain server: {sqlite3.sqlite_version})",
        "elliptic curves by": p384.PROVIDER,
    }


def line(machine: dict[str, object]) -> str:
    """Return the machine in a line: for captions."""
    return (
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['Python']}, {machine['elliptic curves by']}"
    )
