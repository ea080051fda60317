"""Reading the small files that configure a receiver: keys and settings."""

import os
import stat

_MOST = 64 << 10  # bytes; a JWK has some 300


def read_text(path: str | os.PathLike) -> str:
    """Return the text of the file at ``path``, a regular file of at most 64 KiB in UTF-8.

    Raises ValueError that says what is wrong with it and repeats nothing of it. Never waits: opening a pipe
    nobody writes to would hold the start for ever.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is not a regular file")
            data = file.read(_MOST + 1)
    except OSError as cause:
        raise ValueError(f"cannot be read ({os.strerror(cause.errno)})") from None
    if len(data) > _MOST:
        raise ValueError(f"is larger than {_MOST >> 10} KiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None
