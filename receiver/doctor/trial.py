"""A throw-away pair of keys that a running receiver accepts for as long as a trial lasts (receiver.process.running)."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator

from receiver import files
from receiver.mock_platform.keys import StoreKeys
from receiver.process import folders
from receiver.process.running import Service

_FOLDER = 0o700


@contextlib.contextmanager
def trial(service: Service, tenant: str, keys: StoreKeys) -> Iterator[None]:
    """Let ``service`` have ``keys`` for ``tenant`` within this context; raises OSError.

    It is told by a signal, and takes them a moment later. Should this process be killed, the receiver takes them away.
    """
    members = {"platform": (keys.platform.kid, keys.platform.public())}
    members["receiver"] = (keys.receiver.kid, keys.receiver.private())
    texts = {f"{role}-{kid}.json": json.dumps(jwk) for role, (kid, jwk) in members.items()}
    with service.opened_trial() as all_trials:
        with contextlib.suppress(FileExistsError):  # another doctor's trial of the same tenant
            os.mkdir(tenant, _FOLDER, dir_fd=all_trials)
        try:
            with folders.opened(tenant, all_trials) as folder:
                yield from _lying(service, folder, texts)
        finally:
            with contextlib.suppress(OSError):  # another doctor's may lie there
                os.rmdir(tenant, dir_fd=all_trials)


def _lying(service: Service, folder: int, texts: dict[str, str]) -> Iterator[None]:
    """Yield once while the files of ``texts`` lie in ``folder``, and ``service`` knows."""
    try:
        for name, text in texts.items():
            _write(name, text, folder)
        service.signal(signal.SIGHUP)
        yield
    finally:
        for name in texts:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
        with contextlib.suppress(ProcessLookupError):
            service.signal(signal.SIGHUP)


def _write(name: str, text: str, folder: int) -> None:
    """Write ``text`` to ``name`` as a whole: a receiver that looks meanwhile must find no half of a key."""
    files.replace_in(folder, name, text.encode("ascii"), durable=False)
