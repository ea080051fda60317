"""A disk that loses what was not synced: at a power cut, or when a sync fails."""

import errno
import os
import random
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.filesystem import MODELLED, MUTATING, UNUSED


class Killed(BaseException):
    """From here on the process takes no step any more."""


class Node:
    """A file or folder: what it holds ``now``, and what of that ``lasts``."""

    def __init__(self, data: bytes | None):
        self.now = self.lasts = data
        self.is_lost = False  # a sync failed: no later one writes what it held


class Disk:
    """What may be found after a power cut: all that was synced, and of the rest any part, in any order.

    A file's content lasts when it was synced; a name that was made, moved or removed, when its folder was. Moving a file
    from one folder to another happens in both or in none, as it does on ext4, XFS, Btrfs and ZFS.
    """

    def __init__(self, root):
        self.root = root
        self.steps: list[tuple[str, str]] = []
        self.stop_after = sys.maxsize
        self.images: dict[tuple, int] = {}
        self.done = 0  # changes that have returned
        self.cuts_at_each_step, self.samples = True, 40
        self.syncs = 0
        self.failing: tuple[int, ...] = ()  # the numbers of the syncs that fail; what they held is never written
        self.killed_by_failure = False
        self._random = random.Random(7)
        self._at = {str(path): Node(path.read_bytes() if path.is_file() else None) for path in root.rglob("*")}
        self._names = [(None, {path: node}) for path, node in sorted(self._at.items())]
        self._open: dict[int, str] = {}
        self._real = {name: getattr(os, name) for name in MUTATING}

    @contextmanager
    def watched(self):
        with pytest.MonkeyPatch.context() as patch:
            for name in MODELLED:
                patch.setattr(os, name, getattr(self, name))
            for name in UNUSED:
                patch.setattr(os, name, None)
            yield

    def open(self, path, flags, mode=0o777):
        if self._is_of_the_marker(path):
            descriptor = self._real["open"](path, flags, mode)
            self._open.pop(descriptor, None)
            return descriptor
        made = flags & os.O_CREAT and not os.path.lexists(path)
        if made:
            self._step("open", path)
        descriptor = self._real["open"](path, flags, mode)
        if made:
            self._name(path, {path: Node(b"")})
        self._open[descriptor] = path
        return descriptor

    def write(self, descriptor, data):
        self._step("write", self._open[descriptor])
        written = self._real["write"](descriptor, data)
        self._at[self._open[descriptor]].now += bytes(data[:written])
        return written

    def fsync(self, descriptor):
        if descriptor not in self._open:
            self._real["fsync"](descriptor)
            return
        path = self._open[descriptor]
        self._step("fsync", path)
        self.syncs += 1
        if self.syncs in self.failing:
            self._lose(path)
        self._real["fsync"](descriptor)
        if os.path.isdir(path):
            self._names = [(None if folder == path else folder, change) for folder, change in self._names]
        else:
            node = self._at[path]
            node.lasts = node.lasts if node.is_lost else node.now

    def _lose(self, path):
        if os.path.isdir(path):
            self._names = [(folder, change) for folder, change in self._names if folder != path]
        else:
            self._at[path].is_lost = True
        if self.killed_by_failure:
            self.stop_after = len(self.steps)
            raise Killed
        raise OSError(errno.EIO, "a sync that failed", path)

    def rename(self, source, target):
        if self._is_of_the_marker(target):
            self._real["rename"](source, target)
            return
        self._step("rename", target)
        self._real["rename"](source, target)
        self._name(target, {source: None, target: self._at.pop(source)})

    def link(self, source, target):
        self._step("link", target)
        self._real["link"](source, target)
        self._name(target, {target: self._at[source]})

    def unlink(self, path):
        if self._is_of_the_marker(path):
            self._real["unlink"](path)
            return
        self._step("unlink", path)
        self._real["unlink"](path)
        self._name(path, {path: None})

    def mkdir(self, path, mode=0o777):
        if not os.path.lexists(path):
            self._step("mkdir", path)
        self._real["mkdir"](path, mode)
        self._name(path, {path: Node(None)})

    def rmdir(self, path):
        self._step("rmdir", path)
        self._real["rmdir"](path)
        self._name(path, {path: None})

    def _is_of_the_marker(self, path):
        """Return whether ``path`` is outside the store: tests/stores/test_marker.py is about that file."""
        return os.path.basename(path).endswith(".marker")

    def _step(self, name, path):
        if len(self.steps) >= self.stop_after:
            raise Killed
        if self.cuts_at_each_step:
            self.cut()
        self.steps.append((name, os.path.relpath(path, self.root)))

    def _name(self, path, change):
        self._at |= {path: node for path, node in change.items() if node}
        self._names.append((os.path.dirname(path), change))

    def cut(self):
        """Note what a power cut now could leave."""
        unsynced = [number for number, (folder, _) in enumerate(self._names) if folder]
        for lost in ([], unsynced, *([number] for number in unsynced)):
            self._note(lost, lambda node: node.lasts)
        for _ in range(self.samples):
            lost = [number for number in unsynced if self._random.random() < 0.5]
            self._note(lost, lambda node: self._random.choice((node.lasts, node.now, node.now and node.now[:-20])))

    def _note(self, lost, data_of):
        image: dict[str, Node | None] = {}
        for number, (_, change) in enumerate(self._names):
            if number not in lost:
                image |= change
        kept = {path: node.now if node.lasts == node.now else data_of(node) for path, node in image.items() if node}
        key = tuple(sorted(kept.items()))
        self.images[key] = max(self.done, self.images.get(key, 0))

    def after_cut(self, image, folder) -> Path:
        """Write ``image`` into ``folder`` and return it; what lies in a folder that was lost is lost."""
        for path, data in image:
            place = folder / os.path.relpath(path, self.root)
            if place.parent == folder:
                folder.mkdir(exist_ok=True)
            if place.parent.is_dir():
                place.mkdir() if data is None else place.write_bytes(data)
        folder.mkdir(exist_ok=True)
        return folder
