"""Writes and reads key pairs as the files that a receiver uses (keys/README.md).

``platform-<kid>.json`` (public) and ``receiver-<kid>.json`` (private) are for the receiver. The platform's private
half goes to ``mock-platform-<kid>.json``, which the receiver ignores.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from receiver.mock_platform.keys import KeyFault, KeyPair, StoreKeys

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_MOST = 64 << 10  # bytes; a JWK has about 300


def write(folder: Path, keys: StoreKeys) -> Iterator[Path]:
    """Write the three files of ``keys`` into ``folder``, which is made if missing; yield each path once written.

    Raises FileExistsError rather than overwrite a file, and other OSErrors.
    """
    files = {
        f"platform-{keys.platform.kid}.json": keys.platform.public(),
        f"receiver-{keys.receiver.kid}.json": keys.receiver.private(),
        f"mock-platform-{keys.platform.kid}.json": keys.platform.private(),
    }
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    for name, members in files.items():
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "w") as file:
            json.dump(members, file, indent=2)
            file.write("\n")
        yield folder / name


def read(folder: Path) -> StoreKeys:
    """Return the newest pairs in ``folder``; raises a KeyFault that says which file is missing or wrong."""
    platform = _newest(folder, "mock-platform-*.json")
    receiver = _newest(folder, "receiver-*.json")
    return StoreKeys(_pair(platform), _pair(receiver))


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise KeyFault(f"{folder}/{pattern}: there is no such file; `receiver keys generate` makes keys for a trial")
    return found[-1]


def _pair(path: Path) -> KeyPair:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # does not block on a pipe
            return KeyPair.read(file.read(_MOST).decode("utf-8"))
    except OSError as cause:
        raise KeyFault(f"{path}: {cause.strerror}") from None
    except ValueError as cause:
        raise KeyFault(f"{path}: {cause if isinstance(cause, KeyFault) else 'is not text in UTF-8'}") from None
