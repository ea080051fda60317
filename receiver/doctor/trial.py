"""A throw-away pair of keys that a running receiver accepts for as long as a trial lasts (receiver.running)."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from receiver import files
from receiver.mock_platform.keys import StoreKeys
from receiver.running import Service

_FOLDER = 0o700


@contextlib.contextmanager
def trial(service: Service, tenant: str, keys: StoreKeys) -> Iterator[None]:
    """Let ``service`` have ``keys`` for ``tenant`` within this context; raises OSError.

    It is told by a signal, and takes them a moment later. Should this process be killed, the receiver takes them away.
    """
    folder = service.trial / tenant
    lying: list[Path] = []
    try:
        folder.mkdir(mode=_FOLDER, exist_ok=True)
        members = {"platform": (keys.platform.kid, keys.platform.public())}
        members["receiver"] = (keys.receiver.kid, keys.receiver.private())
        for role, (kid, jwk) in members.items():
            lying.append(folder / f"{role}-{kid}.json")
            _write(lying[-1], json.dumps(jwk))
        os.kill(service.pid, signal.SIGHUP)
        yield
    finally:
        for path in lying:
            path.unlink(missing_ok=True)
            _beside(path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another doctor's may lie there
            folder.rmdir()
        if lying:
            with contextlib.suppress(ProcessLookupError):
                os.kill(service.pid, signal.SIGHUP)


def _write(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as a whole: a receiver that looks meanwhile must find no half of a key."""
    beside = _beside(path)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, files.PRIVATE), "w", encoding="ascii") as file:
        file.write(text)
    os.replace(beside, path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}")  # hidden: nobody takes it for a key
