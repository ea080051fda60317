"""Where keys come from: variables, and files in a directory, as people, Kubernetes and systemd lay them down.

A file directly in the directory is for any tenant, one in a folder named by a tenant's UUID for that tenant only. Its
name begins with its role and may hold the kid: ``platform-<kid>.json``, ``receiver-<kid>.json``. systemd makes
``keys_receiver-<kid>.json`` and ``keys_<tenant>_receiver-<kid>.json`` of them, when it loads them as credentials.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from receiver import files
from receiver.jose.compact import canonical_uuid
from receiver.secret import Secret

ROLES = ("platform", "receiver")  # those of the contract; the third one's keys seal contents
_UUID_IN_NAME = re.compile(r"[0-9a-fA-F]{8}(?:[-_][0-9a-fA-F]{4}){3}[-_][0-9a-fA-F]{12}")
_FILE_NAME = re.compile(
    rf"(?:[A-Za-z0-9]+_)?(?:(?P<tenant>{_UUID_IN_NAME.pattern})_)?(?P<role>platform|receiver|sealing)"
    rf"(?:[-_.]key)?(?:[-_.]{_UUID_IN_NAME.pattern})?\.(?:json|jwk)"
)
_VARIABLE = re.compile(r"(?:STORAGE_)?(PLATFORM|RECEIVER|SEALING)_KEY.*")
_NOT_KEYS = re.compile(r"\..*|README.*|mock-.*")


class KeyFault(ValueError):
    """A key cannot be used. The text says what would be valid and holds nothing of the key."""


class Entry(NamedTuple):
    """A ``text`` that is meant as a key; ``source`` names its variable or file, ``path`` the file, if one holds it."""

    source: str
    text: Secret
    role: str
    tenant: str | None
    path: str | None

    def exposure(self) -> str | None:
        """Return what is wrong when everybody on the machine may use the file, and it holds a private key."""
        # A platform key is public, but may be a full JWK.
        is_private = self.role != "platform" or '"d"' in self.text.text
        fault = files.check_private(self.path) if is_private and self.path else None
        return fault and f"{self.source}: {fault}"

    def written(self) -> int | None:
        """Return when the file was written, in seconds since the epoch; None without one."""
        with contextlib.suppress(OSError):
            return int(os.stat(self.path).st_mtime) if self.path else None


def kid_in_name(name: str, whole: bool = False) -> str | None:
    """Return the last UUID in a variable's or file's ``name`` (``whole``: that it is) in its usual spelling, or None.

    Underscores stand for hyphens, because shells drop variables whose names hold hyphens.
    """
    found = _UUID_IN_NAME.findall(name)
    if not found or (whole and found != [name]):
        return None
    return found[-1].replace("_", "-").lower()


def entries(
    variables: Mapping[str, Secret], paths: Mapping[str, str], directory: Path, shared: bool = False
) -> Iterator[Entry | str]:
    """Yield an Entry for each key of ``variables`` and ``directory``, a mistake for what is not one.

    ``paths`` are the files of those variables that named one; in a ``shared`` directory other files are passed over.
    """
    for name, text in variables.items():
        yield Entry(name, text, _VARIABLE.fullmatch(name)[1].lower(), None, paths.get(name))
    if os.path.isdir(directory):  # the default one need not exist; Path.is_dir may raise
        yield from _from_directory(directory, shared)


def _from_directory(directory: Path, shared: bool, tenant: str | None = None) -> Iterator[Entry | str]:
    """Yield an entry for each key file, a mistake for what is not one; a tenant's folder is one level deep.

    Files for people and for the mock platform (``README*``, ``mock-*``, hidden ones) are passed over. What Kubernetes
    mounts needs no more: links to files below ``..data``, which is hidden and changes as a whole.
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
