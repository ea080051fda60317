"""The kinds of damage to what a store on a disk consists of: files removed, emptied, cut, swapped, replaced, a bit flipped."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

RUNNING, RESTART = "while it runs", "before a start"


# What a store of files cannot notice; docs/explanation/reliability.md says so.
UNDETECTABLE = {
    *("state removed", "shard removed", "tenant's folder removed", "tenant's folder emptied"),
    *("tenant's folder replaced by another tenant's", "state replaced by its older copy"),
    *("tenant's folder replaced by its older copy", "folder replaced by its older copy"),
}


@dataclass(frozen=True)
class Place:
    """What is damaged: the store at ``path``, an ``older`` copy of it, ``other``, another store; and a ``chance``.

    ``states`` are the ids that are stored, by tenant.
    """

    path: Path
    older: Path
    other: Path
    chance: random.Random
    states: dict[str, list[str]]


@dataclass(frozen=True)
class Damage:
    """One kind: the ``store`` it is of, what it does, and when it may come."""

    store: str
    name: str
    apply: Callable[[Place], None]
    when: tuple[str, ...] = (RUNNING, RESTART)

    @property
    def is_undetectable(self) -> bool:
        return self.store == "file" and self.name in UNDETECTABLE


def removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def emptied(path: Path) -> None:
    if path.is_dir():
        for one in path.iterdir():
            removed(one)
    else:
        os.truncate(path, 0)


def halved(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path, chance: random.Random) -> None:
    """Flip one bit of the file, in its place."""
    at, bit = chance.randrange(path.stat().st_size), 1 << chance.randrange(8)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def replaced(path: Path, by: Path) -> None:
    """Put a copy of ``by`` at ``path``, as ``mv`` does it."""
    new = path.with_name(path.name + ".brought")
    shutil.copytree(by, new) if by.is_dir() else shutil.copy2(by, new)
    if path.is_dir():
        shutil.rmtree(path)
    new.rename(path)


def overwritten(path: Path, by: Path) -> None:
    """Write what ``by`` holds into ``path``, as ``cp`` does it."""
    path.write_bytes(by.read_bytes())


def beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def marker_of(path: Path) -> Path:
    return next(one for one in (beside(path, "-marker"), beside(path, ".marker")) if one.exists())


def _of_sqlite() -> Iterator[tuple]:
    for ending, name in (("", "database"), ("-wal", "-wal"), ("-shm", "-shm")):

        def at(place: Place, ending=ending) -> Path:
            return beside(place.path, ending)

        yield f"{name} removed", lambda place, at=at: removed(at(place))
        yield f"{name} emptied", lambda place, at=at: emptied(at(place))
        yield f"{name} cut in half", lambda place, at=at: halved(at(place))
        for number in range(4):
            yield f"bit {number} flipped in {name}", lambda place, at=at: flipped(at(place), place.chance)
        if name != "-shm":
            yield (
                f"{name} replaced by another store's",
                lambda place, at=at, ending=ending: replaced(at(place), beside(place.other, ending)),
            )
            yield (
                f"{name} replaced by its older copy",
                lambda place, at=at, ending=ending: replaced(at(place), beside(place.older, ending)),
            )
    yield "all replaced by another store", lambda place: _all(place.path, place.other)
    yield "all replaced by its older copy", lambda place: _all(place.path, place.older)


def _all(path: Path, by: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        if beside(by, ending).exists():
            replaced(beside(path, ending), beside(by, ending))
        elif beside(path, ending).exists():
            removed(beside(path, ending))


def _of_marker() -> Iterator[tuple]:
    yield "marker removed", lambda place: removed(marker_of(place.path))
    yield "marker emptied", lambda place: emptied(marker_of(place.path))
    yield "bit flipped in marker", lambda place: flipped(marker_of(place.path), place.chance)
    yield "marker replaced by another store's", lambda place: replaced(marker_of(place.path), marker_of(place.other))
    yield "store removed", lambda place: _store_removed(place.path)


def _store_removed(path: Path) -> None:
    for one in (path, beside(path, "-wal"), beside(path, "-shm")):
        if one.exists():
            removed(one)


def state_file(place: Place, which: int = 0) -> Path:
    tenant = sorted(place.states)[which % len(place.states)]
    id = place.chance.choice(place.states[tenant])
    return place.path / tenant / id[:2] / f"{id}.state"


def _two_states(place: Place) -> None:
    tenant = sorted(place.states)[0]
    ids = place.chance.sample(place.states[tenant], 2)
    one, other = (place.path / tenant / id[:2] / f"{id}.state" for id in ids)
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def _older_state(place: Place) -> None:
    """Put the older copy of a state back whole that has been saved since."""
    for file in sorted(place.older.rglob("*.state")):
        now = place.path / file.relative_to(place.older)
        if now.exists() and now.read_bytes() != file.read_bytes():
            return replaced(now, file)
    raise AssertionError("no state has changed")


def some(place: Place, pattern: str) -> Path:
    found = sorted(one for one in place.path.rglob(pattern) if one.is_file())
    return place.chance.choice(found)


def _of_files() -> Iterator[tuple]:
    yield "state removed", lambda place: removed(state_file(place))
    yield "state emptied", lambda place: emptied(state_file(place))
    yield "state cut in half", lambda place: halved(state_file(place))
    for number in range(4):
        yield f"bit {number} flipped in a state", lambda place: flipped(state_file(place), place.chance)
    yield "two states swapped", _two_states
    yield "state replaced by another tenant's", lambda place: overwritten(state_file(place), state_file(place, 1))
    yield "state replaced by its older copy", _older_state
    yield "shard removed", lambda place: removed(state_file(place).parent)
    yield "tenant's folder removed", lambda place: removed(state_file(place).parent.parent)
    yield "tenant's folder emptied", lambda place: emptied(state_file(place).parent.parent)
    yield (
        "tenant's folder replaced by its older copy",
        lambda place: replaced(state_file(place).parent.parent, place.older / sorted(place.states)[0]),
    )
    yield (
        "tenant's folder replaced by another tenant's",
        lambda place: replaced(state_file(place).parent.parent, place.path / sorted(place.states)[1]),
    )
    for name in ("format", "key-uses", ".receipts/*", ".lock"):
        yield f"{name} removed", lambda place, name=name: removed(some(place, name))
        yield f"{name} emptied", lambda place, name=name: emptied(some(place, name))
        if name != ".lock":
            yield f"bit flipped in {name}", lambda place, name=name: flipped(some(place, name), place.chance)
    yield "folder emptied", lambda place: emptied(place.path)
    yield "folder replaced by another store", lambda place: replaced(place.path, place.other)
    yield "folder replaced by its older copy", lambda place: replaced(place.path, place.older)


def all_damage() -> list[Damage]:
    """Return every kind."""
    found = [Damage("sqlite", name, apply) for name, apply in (*_of_sqlite(), *_of_marker())]
    return found + [Damage("file", name, apply) for name, apply in (*_of_files(), *_of_marker())]
