"""Key pairs as the files that a receiver reads, and back (keys/README.md).

``platform-<kid>.json`` (public) and ``receiver-<kid>.json`` (private) are the receiver's; the platform's private
half goes to ``mock-platform-<kid>.json``, which a receiver passes over.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from receiver.mock_platform.keys import KeyFault, KeyPair, StoreKeys

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_MOST = 64 << 10  # bytes; a JWK has some 300


def write(folder: Path, keys: StoreKeys) -> Iterator[Path]:
    """Write the three files of ``keys`` into ``folder``, made where it is missing; yields each path once it is written.

    Never overwrites: raises FileExistsError then, and other OSErrors as they come.
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
    """Return the newest pairs in ``folder``; raises KeyFault, which says what is missing or wrong and where."""
    platform = _newest(folder, "mock-platform-*.json")
    receiver = _newest(folder, "receiver-*.json")
    return StoreKeys(_pair(platform), _pair(receiver))


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise KeyFault(f"{folder}/{pattern}: there is no such file; `receiver keys generate` makes keys to try with")
    return found[-1]


def _pair(path: Path) -> KeyPair:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # never waits for a pipe
            return KeyPair.read(file.read(_MOST).decode("utf-8"))
    except OSError as cause:
        raise KeyFault(f"{path}: {cause.strerror}") from None
    except ValueError as cause:
        raise KeyFault(f"{path}: {cause if isinstance(cause, KeyFault) else 'is not text in UTF-8'}") from None
