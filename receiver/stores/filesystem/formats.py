"""The formats of files: the mark of the store; a line of JSON with a checksum; in a state file, then the content.

``head -1 FILE`` shows the metadata of a state, ``tail -n +2 FILE`` its content, unless it is sealed. A line ends in the
CRC-32 of everything before it, which includes the CRC-32 of the content. So each bit of the file is covered, and the
metadata can be trusted without reading the content.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Self

from receiver.files import ownership
from receiver.problems import StoreDamaged, StoreMisplaced
from receiver.states import Content, Instant, State, Summary, metadata_of
from receiver.stores.filesystem.durable import LOCK, read_only, sync_folder, write_file
from receiver.stores.filesystem.shapes import Fields, is_header, is_uuid, only

FORMAT = 2  # the version of the layout; 1 had no sealed contents; a newer one is left alone
MARK = "format"
_NEW_MARK = ".format"
_STORE = "external-storage-receiver"
_NO_STRANGERS = {"lost+found", LOCK, _NEW_MARK}  # left by a new volume, or by a start that failed
_NO_LINKS = {errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
_LONGEST_LINE = 8192  # bytes; a state's has some 700
_CHECK = b', "crc32": '


def check_mark(folder: str) -> None:
    """Raise StoreMisplaced unless ``folder`` is empty, or a store in a known format."""
    mark = f"{folder}/{MARK}"
    if is_empty(folder):
        return
    try:
        if not os.path.lexists(mark):
            text = "is not empty and has no file named format, so it is no store; name an empty folder"
            raise StoreMisplaced(f"{folder}: {text}")
        found = _read_mark(folder)
        version = found["format"] if found["store"] == _STORE else None
    except OSError as cause:
        raise StoreMisplaced(f"{mark}: cannot be read: {cause.strerror}{ownership(mark)}") from cause
    except (KeyError, TypeError, ValueError):
        version = None
    if type(version) is not int or version < 1:
        raise StoreMisplaced(f"{mark}: is not the mark of a store; restore it, or name an empty folder")
    if version > FORMAT:
        raise StoreMisplaced(f"{mark}: is of format {version}, newer than {FORMAT}; upgrade the receiver")


def is_empty(folder: str) -> bool:
    """Return whether nothing of a store is in ``folder``; raises StoreMisplaced when it cannot be read."""
    try:
        return not set(os.listdir(folder)) - _NO_STRANGERS
    except OSError as cause:
        raise StoreMisplaced(f"{folder}: cannot be read: {cause.strerror}{ownership(folder)}") from cause


def id_in(folder: str) -> str:
    """Return the id in the mark of ``folder``; "" when it has none yet, or is no mark. Raises OSError."""
    try:
        found = _read_mark(folder).get("id")
    except (FileNotFoundError, ValueError):
        return ""
    return str(found) if is_uuid(found) else ""


def _read_mark(folder: str) -> Fields:
    with open(f"{folder}/{MARK}", "rb", opener=read_only) as file:
        return _object(file.read(_LONGEST_LINE))


def make_mark(folder: str, id: str) -> None:
    """Mark ``folder`` as a store of this format, unless it is marked. Under its lock; durable once it is synced.

    Its id is ``id``, unless it has one. Raises StoreMisplaced where the file system has no hard links: every receipt
    needs one.
    """
    new, mark = f"{folder}/{_NEW_MARK}", f"{folder}/{MARK}"
    in_doubt = os.path.lexists(new)  # left by a start that failed, perhaps in its sync
    id = id_in(folder) or id
    text = json.dumps({"store": _STORE, "format": FORMAT, "id": id}).encode("ascii") + b"\n"
    is_there = os.path.lexists(mark)
    if is_there and not in_doubt:
        with open(mark, "rb", opener=read_only) as file:
            if file.read(_LONGEST_LINE) == text:
                return
    with suppress(FileNotFoundError):
        os.unlink(new)
    write_file(new, text)
    if is_there:  # in doubt, or of an older version, which this program can read
        os.rename(new, mark)
        sync_folder(folder)
        return
    try:
        os.link(new, mark)
    except OSError as cause:
        os.unlink(new)
        if cause.errno not in _NO_LINKS:
            raise
        raise StoreMisplaced(f"{folder}: this file system makes no hard links; name a folder on another") from cause
    sync_folder(folder)
    os.unlink(new)


class Torn(ValueError):
    """A line is not exactly what was written: a part is missing or changed."""


def to_line(fields: Fields) -> bytes:
    """Return ``fields`` as one line of JSON in ASCII; a last field, ``crc32``, covers all others."""
    body = json.dumps(fields)[:-1].encode("ascii")
    return b'%b%b"%08x"}\n' % (body, _CHECK, zlib.crc32(body))


def from_line(line: bytes) -> Fields:
    """Return the fields of ``line``; raises Torn for a wrong checksum, ValueError for anything but a JSON object."""
    body, _, rest = line.rpartition(_CHECK)
    if rest != b'"%08x"}\n' % zlib.crc32(body):
        raise Torn("not what was written")
    return _object(body + b"}")


def _object(text: bytes) -> Fields:
    """Return the members of the JSON object ``text``; raises ValueError for anything else."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def encode(tenant: str, state: State) -> tuple[bytes, bytes]:
    """Return the two parts of the file of ``state`` of ``tenant``: its first line and its content."""
    content = state.content.text.encode("utf-8")
    fields = metadata_of(state) | {"tenant": tenant}
    fields |= {"contentBytes": len(content), "contentCrc32": f"{zlib.crc32(content):08x}"}
    if state.updated_at.rounded:
        fields["updatedRounded"] = state.updated_at.rounded
    if state.content.sealing_key:
        fields["sealingKey"] = state.content.sealing_key
    return to_line(fields), content


class StateFile:
    """The open file of the state ``id`` of ``tenant`` at ``path``: a context that closes it.

    It keeps what it held when it was opened, even if it is replaced meanwhile. ``line`` is its first line. Raises
    FileNotFoundError, and StoreDamaged when that line is not what was written.
    """

    def __init__(self, path: str, tenant: str, id: str) -> None:
        self.id = id
        self._file = open(path, "rb", opener=read_only)  # noqa: SIM115
        try:
            with _damage(id):
                self.line = self._file.readline(_LONGEST_LINE)
                self._fields = from_line(self.line)
                if (self._fields["tenant"], self._fields["id"]) != (tenant, id):
                    raise ValueError("the file of another state")
                only(self._fields, is_header)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def state(self) -> State:
        """Return the state without its content, which is not read; raises StoreDamaged."""
        with _damage(self.id):
            return _state_of(self._fields, "")

    def summary(self) -> Summary:
        """Return the Summary without reading the content; raises StoreDamaged when its size is wrong."""
        state = self.state()
        with _damage(self.id):
            times = state.updated_at, state.expires_at
            return Summary(state.tenant, state.id, *times, self._size(), state.content.sealing_key)

    def whole(self) -> State:
        """Return the state with its content; raises StoreDamaged when that is not what was written."""
        with _damage(self.id):
            self._size()
            content = self._file.read()
            if f"{zlib.crc32(content):08x}" != self._fields["contentCrc32"]:
                raise ValueError("the content is not what was saved")
            return _state_of(self._fields, content.decode("utf-8"))

    def _size(self) -> int:
        """Return the size of the content in bytes; raises ValueError when the file's size does not match."""
        size: int = self._fields["contentBytes"]
        if os.fstat(self._file.fileno()).st_size != len(self.line) + size:
            raise ValueError("the content has another size")
        return size


def _state_of(fields: Fields, content: str) -> State:
    updated, expires = Instant.parse(fields["updatedAt"]), fields["expiresAt"]
    return State(
        fields["id"],
        fields["tenant"],
        fields["parent"],
        fields["flow"],
        fields["flowVersion"],
        fields["isDone"],
        fields["currentMapElement"],
        fields["currentUser"],
        Instant.parse(fields["createdAt"]),
        replace(updated, rounded=fields["updatedRounded"]) if "updatedRounded" in fields else updated,
        Instant.parse(expires) if expires else None,
        Content(content, fields.get("sealingKey")),
    )


@contextmanager
def _damage(id: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError) as cause:
        raise StoreDamaged(f"files: state {id} cannot be read back") from cause
