"""When each key was last used: one small file beside the tenants' folders, replaced as a whole."""

import logging
import time
from collections.abc import Callable

from receiver.files import replace_file
from receiver.stores.filesystem import durable, shapes
from receiver.stores.filesystem.formats import from_line, to_line

_NAME = "key-uses"
Uses = dict[tuple[str, str], int]


def read(folder: str) -> Uses:
    """Return (role, kid) → seconds since the epoch of the store at ``folder``; nothing if the file is damaged.

    It can be rebuilt: each content names the key that it needs. Raises OSError.
    """
    try:
        with open(f"{folder}/{_NAME}", "rb", opener=durable.read_only) as file:
            kept = shapes.only(from_line(file.read()), shapes.are_uses)
        return {(role, kid): used for role, kids in kept.items() for kid, used in kids.items()}
    except FileNotFoundError:
        return {}
    except ValueError:
        logging.getLogger("receiver").warning(
            "files: %s/%s is not what was written; it is written again", folder, _NAME
        )
        return {}


def change(folder: str, edit: Callable[[Uses], object], timeout: float) -> None:
    """Change the uses of the store at ``folder`` with ``edit``, under its lock; durable when this returns."""
    with durable.locked(folder, time.monotonic() + timeout):
        uses = read(folder)
        edit(uses)
        kept: dict[str, dict[str, int]] = {}
        for (role, kid), used in sorted(uses.items()):
            kept.setdefault(role, {})[kid] = used
        replace_file(f"{folder}/{_NAME}", to_line(kept))
