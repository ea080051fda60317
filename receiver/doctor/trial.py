"""A throw-away pair of keys that a running receiver accepts while a trial lasts (receiver.process.running)."""

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
    """Give ``service`` the ``keys`` for ``tenant`` within this context; raises OSError.

    A signal makes the receiver look; it accepts them a moment later. If this process is killed, the receiver removes
    them.
    """
    members = {"platform": (keys.platform.kid, keys.platform.public())}
    members["receiver"] = (keys.receiver.kid, keys.receiver.private())
    texts = {f"{role}-{kid}.json": json.dumps(jwk) for role, (kid, jwk) in members.items()}
    with service.opened_trial() as all_trials:
        with contextlib.suppress(FileExistsError):  # another doctor's trial of the same tenant
            os.mkdir(tenant, _FOLDER, dir_fd=all_trials)
        try:
            with folders.opened(tenant, all_trials) as folder:
                yield from _placed(service, folder, texts)
        finally:
            with contextlib.suppress(OSError):  # another doctor's keys may be there
                os.rmdir(tenant, dir_fd=all_trials)


def _placed(service: Service, folder: int, texts: dict[str, str]) -> Iterator[None]:
    """Yield once while the files of ``texts`` are in ``folder``; signal ``service`` before and after."""
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
    """Write ``text`` to ``name`` atomically: the receiver must never read half a key."""
    files.replace_in(folder, name, text.encode("ascii"), durable=False)
