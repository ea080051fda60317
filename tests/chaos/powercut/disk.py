"""A model of a disk: what may be found on it after a power cut, from the log of what was done to it.

What is sure: what a file held when a sync of it began that succeeded; a name that was made, moved or removed before a
sync of its folder began that succeeded. Of the rest, any part may be lost, in any order: each name, each write, each
piece of a write (512 or 4096 bytes), each change of a size. A rename happens in both folders or in none, as it does on
ext4, XFS, Btrfs and ZFS; it lasts once the folder of its new name is synced. A failed sync may lose for good what it was
to make durable: later syncs do not bring that back. The index of SQLite's log ("-shm") is in memory: it may be gone,
or any copy of it may be there.
"""

import os
import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.shim import Event

_PIECES = (512, 4096)
_SURVIVES = 0.2  # of what a failed sync held, how much the disk has nevertheless
MEMORY = "-shm"


@dataclass(eq=False, slots=True)
class Part:
    """A change of a file that is not durable: ``data`` at ``offset``, or a new size."""

    number: int
    offset: int
    data: bytes | None


@dataclass(eq=False, slots=True)
class Node:
    """A file or folder: what of it is ``sure``, and the ``parts`` that are not yet."""

    is_folder: bool
    sure: "Content" = field(default_factory=lambda: Content(bytearray()))
    parts: list[Part] = field(default_factory=list)
    now: dict[str, "Node"] = field(default_factory=dict)  # of a folder: its names, as the processes see them
    copies: list[bytes] = field(default_factory=list)  # of an index

    def content(self, kept: Iterable[Part]) -> "Content":
        """Return what it holds when of its parts those that are ``kept`` reached the disk."""
        found = Content(bytearray(self.sure.data), self.sure.size)
        for part in kept:
            found.apply(part)
        return found


@dataclass(slots=True)
class Content:
    """What a file holds: ``data``, and zeros up to its ``size``, which a reserved file has many of."""

    data: bytearray
    size: int = 0

    def apply(self, part: Part) -> None:
        """Make a change."""
        if part.data is None:
            del self.data[part.offset :]
            self.size = part.offset
            return
        end = part.offset + len(part.data)
        if part.offset > len(self.data):
            self.data.extend(bytes(part.offset - len(self.data)))
        self.data[part.offset : end] = part.data
        self.size = max(self.size, end)

    @property
    def digest(self) -> tuple[int, int]:
        """What tells it from other contents."""
        return self.size, zlib.crc32(self.data.rstrip(b"\0"))


@dataclass(eq=False, slots=True)
class Naming:
    """A change of names: lasts when the folder ``within`` is synced, and once it is ``sure``."""

    number: int
    within: Node
    changes: tuple[tuple[Node, str, Node | None], ...]
    sure: bool = False


Image = dict[str, Content | None]  # path below the watched folder → content, None for a folder


class Disk:
    """The disk while the events of a log pass by: ``see`` each, then ask for an ``image`` of a power cut."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self.root = Node(True)
        self.number = 0
        self._names: dict[Node, dict[str, Node]] = {self.root: {}}  # the sure ones
        self._namings: list[Naming] = []
        self._files: dict[int, Node] = {}
        self._syncs: dict[int, int] = {}  # the number of a sync → that of the event at its begin

    def see(self, event: Event) -> None:
        """Take the next event into account; raises ValueError for one that the model has not."""
        self.number += 1
        actions = {"create": self._create, "mkdir": self._create, "resize": self._resize, "write": self._write}
        actions |= {"rename": self._rename, "link": self._link, "unlink": self._unlink, "rmdir": self._unlink}
        actions |= {"sync begins": self._sync_begins, "sync ends": self._sync_ends, "index": self._index}
        if event.kind != "mark":
            if event.kind not in actions:
                raise ValueError(f"the model has no {event.kind}: {event.data!r} of {event.path}")
            actions[event.kind](event)

    def _create(self, event: Event) -> None:
        folder, name = self._place(event.path)
        node = Node(event.kind == "mkdir")
        self._files[event.inode] = node
        self._name(folder, (folder, name, node))

    def _write(self, event: Event) -> None:
        self._files[event.inode].parts.append(Part(self.number, event.a, event.data))

    def _resize(self, event: Event) -> None:
        self._files[event.inode].parts.append(Part(self.number, event.a, None))

    def _rename(self, event: Event) -> None:
        (source, old), (target, new) = self._place(event.path), self._place(os.fsdecode(event.data))
        self._name(target, (source, old, None), (target, new, source.now[old]))

    def _link(self, event: Event) -> None:
        folder, name = self._place(os.fsdecode(event.data))
        self._name(folder, (folder, name, self._at(event.path)))

    def _unlink(self, event: Event) -> None:
        folder, name = self._place(event.path)
        self._name(folder, (folder, name, None))

    def _index(self, event: Event) -> None:
        node = self._files.get(event.inode)
        if node:
            node.copies = [*node.copies[-3:], event.data]

    def _sync_begins(self, event: Event) -> None:
        self._syncs[event.a] = self.number

    def _sync_ends(self, event: Event) -> None:
        began = self._syncs.pop(event.a)
        node = self.root if not event.path else self._files.get(event.inode)
        if node is None or (event.error and not event.b):
            return
        if node.is_folder:
            self._sync_names(node, began, lost=bool(event.b))
        else:
            for part in node.parts:
                if part.number < began and (not event.b or self._had_reached_the_disk()):
                    node.sure.apply(part)
            node.parts = [part for part in node.parts if part.number >= began]

    def _sync_names(self, folder: Node, began: int, lost: bool) -> None:
        for naming in [*self._namings]:
            if naming.within is folder and naming.number < began and not naming.sure:
                naming.sure = not lost or self._had_reached_the_disk()
                if not naming.sure:
                    self._namings.remove(naming)
        unsure: set[tuple[Node, str]] = set()
        left = []
        for naming in self._namings:
            names = {(place, name) for place, name, _ in naming.changes}
            if naming.sure and not names & unsure:
                _rename(self._names, naming)
            else:
                left.append(naming)
                unsure |= names
        self._namings = left

    def _had_reached_the_disk(self) -> bool:
        """Whether something that a failed sync held is not lost, but durable already; by chance."""
        return self._chance.random() < _SURVIVES

    def _name(self, within: Node, *changes: tuple[Node, str, Node | None]) -> None:
        self._namings.append(Naming(self.number, within, changes))
        for folder, name, node in changes:
            folder.now.pop(name, None)
            if node:
                folder.now[name] = node

    def _place(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self._at(folder), name

    def _at(self, path: str) -> Node:
        found = self.root
        for name in path.split("/")[1:]:
            found = found.now[name]
        return found

    def image(self, chance: random.Random, how: str) -> Image:
        """Return what a power cut now leaves: ``how`` is one of HOW."""
        choice = Choice(chance, how)
        names = {folder: dict(entries) for folder, entries in self._names.items()}
        for naming in self._namings:
            if naming.sure or choice.keeps_name(naming):
                _rename(names, naming)
        found: Image = {}
        folders = [("", self.root)]
        for path, folder in folders:  # it grows meanwhile
            for name, node in sorted(names.get(folder, {}).items()):
                if node.is_folder:
                    found[f"{path}/{name}"] = None
                    folders.append((f"{path}/{name}", node))
                elif not name.endswith(MEMORY):
                    found[f"{path}/{name}"] = node.content(choice.parts(node.parts) if node.parts else ())
                elif node.copies and choice.keeps_memory():
                    copy = chance.choice(node.copies)
                    found[f"{path}/{name}"] = Content(bytearray(copy), len(copy))
        return found


HOW = ("nothing", "all", "subset", "mostly", "hardly", "names", "data", "prefix")


class Choice:
    """What of the unsure a power cut leaves: "nothing", "all", a random "subset", …"""

    def __init__(self, chance: random.Random, how: str) -> None:
        self.chance = chance
        self.how = how
        share = {"nothing": 0.0, "all": 1.0, "subset": 0.5, "mostly": 0.9, "hardly": 0.1}.get(how, 0.5)
        self.of_names = {"names": 1.0, "data": 0.0}.get(how, share)
        self.of_data = {"names": 0.0, "data": 1.0}.get(how, share)
        self.piece = chance.choice((*_PIECES, 0))

    def keeps_name(self, naming: Naming) -> bool:
        return self.chance.random() < self.of_names

    def keeps_memory(self) -> bool:
        return self.how != "nothing" and self.chance.random() < 0.4

    def parts(self, parts: Sequence[Part]) -> list[Part]:
        """Return those of ``parts`` that reached the disk, whole or in pieces."""
        shares = [self.of_data] * len(parts)
        if self.how == "prefix":
            count = self.chance.randrange(len(parts) + 1)
            shares = [1.0] * count + [0.5] * len(parts[count : count + 1])
        found: list[Part] = []
        for part, share in zip(parts, shares, strict=False):
            if share in (0.0, 1.0):
                found += [part] if share else []
            else:
                found += self._torn(part, share)
        return found

    def _torn(self, part: Part, share: float) -> list[Part]:
        if part.data is None or not self.piece:
            return [part] if self.chance.random() < share else []
        found, at, end = [], part.offset, part.offset + len(part.data)
        while at < end:
            until = min(end, at - at % self.piece + self.piece)
            if self.chance.random() < share:
                found.append(Part(part.number, at, part.data[at - part.offset : until - part.offset]))
            at = until
        return found


def _rename(names: dict[Node, dict[str, Node]], naming: Naming) -> None:
    for folder, name, node in naming.changes:
        entries = names.setdefault(folder, {})
        entries.pop(name, None)
        if node:
            entries[name] = node


def write(image: Image, folder: Path) -> None:
    """Write ``image`` into ``folder``, which is empty."""
    for path, content in image.items():
        if content is None:
            os.mkdir(f"{folder}{path}", 0o700)
        else:
            descriptor = os.open(f"{folder}{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, content.data)
            os.ftruncate(descriptor, content.size)
            os.close(descriptor)
