"""Where keys come from: variables, and files in a directory, as people, Kubernetes and systemd put them there.

A file directly in the directory is for any tenant; one in a folder named by a tenant's UUID is for that tenant only.
Its name begins with its role and may hold the kid: ``platform-<kid>.json``, ``receiver-<kid>.json``. As credentials,
systemd names them ``keys_receiver-<kid>.json`` and ``keys_<tenant>_receiver-<kid>.json``.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from receiver import files
from receiver.encoding import canonical_uuid
from receiver.secret import Secret

ROLES = ("platform", "receiver")  # those of the contract; keys of a third role, "sealing", seal contents
_UUID_IN_NAME = re.compile(r"[0-9a-fA-F]{8}(?:[-_][0-9a-fA-F]{4}){3}[-_][0-9a-fA-F]{12}")
_FILE_NAME = re.compile(
    rf"(?:[A-Za-z0-9]+_)?(?:(?P<tenant>{_UUID_IN_NAME.pattern})_)?(?P<role>platform|receiver|sealing)"
    rf"(?:[-_.]key)?(?:[-_.]{_UUID_IN_NAME.pattern})?\.(?:json|jwk)"
)
_VARIABLE = re.compile(r"(?:STORAGE_)?(PLATFORM|RECEIVER|SEALING)_KEY.*")
_NOT_KEYS = re.compile(r"\..*|README.*|mock-.*")


class KeyFault(ValueError):
    """A key cannot be used. The message says what would be valid and repeats nothing of the key."""


class Entry(NamedTuple):
    """A ``text`` that is meant as a key; ``source`` is its variable or file, ``path`` its file if there is one."""

    source: str
    text: Secret
    role: str
    tenant: str | None
    path: str | None

    def exposure(self) -> str | None:
        """Return a message if the file holds a private key and everybody on the machine may use it, else None."""
        # A platform key is public, but the file may hold the whole JWK.
        is_private = self.role != "platform" or '"d"' in self.text.text
        fault = files.check_private(self.path) if is_private and self.path else None
        return f"{self.source}: {fault}" if fault else None

    def written(self) -> int | None:
        """Return when the file was written, in seconds since the epoch; None if there is no file."""
        with contextlib.suppress(OSError):
            return int(os.stat(self.path).st_mtime) if self.path else None
        return None


def kid_in_name(name: str, whole: bool = False) -> str | None:
    """Return the last UUID in the ``name`` of a variable or file, in its usual spelling; None if there is none.

    With ``whole``, the name must be nothing else. Underscores may stand for hyphens, because shells drop variables
    with hyphens in their names.
    """
    found: list[str] = _UUID_IN_NAME.findall(name)
    if not found or (whole and found != [name]):
        return None
    return found[-1].replace("_", "-").lower()


def entries(
    variables: Mapping[str, Secret], paths: Mapping[str, str], directory: Path, shared: bool = False
) -> Iterator[Entry | str]:
    """Yield an Entry for each key in ``variables`` and ``directory``, and a mistake (str) for what is not a key.

    ``paths`` are the files of the variables that name one. In a ``shared`` directory, skips other files.
    """
    for name, text in variables.items():
        if match := _VARIABLE.fullmatch(name):
            yield Entry(name, text, match[1].lower(), None, paths.get(name))
    if os.path.isdir(directory):  # the default one need not exist; Path.is_dir may raise
        yield from _from_directory(directory, shared)


def _from_directory(directory: Path, shared: bool, tenant: str | None = None) -> Iterator[Entry | str]:
    """Yield an Entry for each key file, and a mistake for any other; a tenant's folder is one level deep.

    Skips files for people and for the mock platform (``README*``, ``mock-*``, hidden ones). Kubernetes mounts links to
    files below ``..data``, which is hidden and changes as a whole.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if not _NOT_KEYS.fullmatch(path.name))
    except OSError as cause:
        yield f"{directory}: cannot be read ({type(cause).__name__}){files.ownership(directory)}"
        return
    for path in paths:
        match = _FILE_NAME.fullmatch(path.name)
        folder = os.path.isdir(path)
        if folder and tenant is None and canonical_uuid(path.name):
            yield from _from_directory(path, shared, canonical_uuid(path.name))
        elif match and not folder:
            try:
                owner = tenant or kid_in_name(match["tenant"] or "")
                yield Entry(str(path), Secret(files.read_text(path)), match["role"], owner, str(path))
            except ValueError as cause:
                yield f"{path}: {cause}"
        elif folder and not shared:
            yield f"{path}: a folder of keys must be named by a tenant's UUID and lie directly in {directory}"
        elif not shared:
            wrong = "; its name says that it holds no JWK, which is needed" if _is_other_format(path) else ""
            yield f"{path}: must be named platform-<kid>.json, receiver-<kid>.json or sealing-<kid>.json{wrong}"


def _is_other_format(path: Path) -> bool:
    return path.suffix.lower() in (".pem", ".der", ".crt", ".cer", ".key", ".p12", ".pfx", ".jks")
