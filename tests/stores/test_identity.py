"""A store that is gone, emptied or another is refused, and never answered by a new one."""

import contextlib
import errno
import multiprocessing
import os
import shutil
import uuid
from pathlib import Path

import pytest

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores import open_store
from receiver.stores.marker import Marker
from tests.support.states import TENANT, a_receipt, a_state, uid

KINDS = ["sqlite", "filesystem"]
GONE = "was here: put it back .*receiver store accept.*receiver store init"


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    return Place(request.param, tmp_path / "states")


class Place:
    """Where a store of ``kind`` lies: the file or folder ``path``, with everything beside it."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path.with_suffix(".db") if kind == "sqlite" else path
        self.url = f"sqlite:///{self.path}" if kind == "sqlite" else f"file://{self.path}"
        self.marker = Path(f"{self.path}-marker" if kind == "sqlite" else f"{self.path}.marker")

    def opened(self, **more):
        return contextlib.closing(open_store(self.url, 5, **more))

    def filled(self) -> str:
        """Make a store with a state; return its id."""
        with self.opened() as store:
            store.save(TENANT, [a_state()], None)
            return store.mark().store

    def remove(self) -> None:
        if self.kind == "sqlite":
            for ending in ("", "-wal", "-shm"):
                Path(f"{self.path}{ending}").unlink(missing_ok=True)
        else:
            shutil.rmtree(self.path, ignore_errors=True)

    def empty(self) -> None:
        self.remove()
        self.path.touch() if self.kind == "sqlite" else self.path.mkdir()

    def move(self, other: "Place") -> None:
        self.path.rename(other.path)

    def refused(self, match: str, kind=StoreMisplaced, **more) -> None:
        """Assert that a start is refused, again and again, and leaves everything as it is."""
        before = sorted(self.path.parent.rglob("*"))
        for _ in range(2):
            with pytest.raises(kind, match=match), self.opened(**more) as store:
                store.prepare()
        assert sorted(self.path.parent.rglob("*")) == before


def test_a_first_start_needs_nothing_and_each_store_gets_an_identity_of_its_own(place, tmp_path):
    one, other = place.filled(), Place(place.kind, tmp_path / "others").filled()
    assert str(uuid.UUID(one)) == one != other
    with place.opened() as again:
        assert again.mark().store == one
        assert again.find(TENANT, uid(10)) == a_state()
    assert one in place.marker.read_text()


@pytest.mark.case("I08")
@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_a_start_on_a_store_that_is_gone_is_refused(place, how):
    id = place.filled()
    place.remove() if how == "removed" else place.empty()
    place.refused(f"is {'missing' if how == 'removed' else 'empty'}, but .*{id} {GONE}")
    with pytest.raises(StoreMisplaced, match=GONE), place.opened() as store:
        store.check_location()  # before anything is opened


@pytest.mark.case("I08")
def test_a_store_that_was_emptied_in_place_is_refused_whatever_the_file_system(tmp_path):
    place = Place("sqlite", tmp_path / "states")
    place.filled()
    os.truncate(place.path, 0)  # no attributes of files are used, so tmpfs, NFS or overlayfs make no difference
    assert not os.listxattr(place.path)
    place.refused(GONE)


@pytest.mark.case("I08")
def test_the_store_of_somebody_else_is_refused_at_a_start_and_while_running(place, tmp_path):
    own, other = place.filled(), Place(place.kind, tmp_path / "others")
    their = other.filled()
    aside = Place(place.kind, tmp_path / "aside")
    with place.opened(create=False) as running:
        assert running.find(TENANT, uid(10))
        place.move(aside)
        if place.kind == "sqlite":
            for ending in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{place.path}{ending}").rename(f"{aside.path}{ending}")
        other.move(place)
        match = f"holds the store {their}, but .* says that {own} belongs here: .*receiver store accept"
        for call in (
            running.ping,
            lambda: running.find(TENANT, uid(10)),
            lambda: running.save(TENANT, [a_state(11)], a_receipt()),
        ):
            with pytest.raises(StoreUnavailable, match="replaced while in use" if place.kind == "sqlite" else match):
                call()
    place.refused(match)
    with place.opened() as store:
        assert store.accept().store == their
        store.ping()
        assert store.find(TENANT, uid(11)) is None


def test_what_is_right_again_is_served_again(place, tmp_path):
    place.filled()
    aside = Place(place.kind, tmp_path / "aside")
    place.move(aside)
    place.refused(GONE)
    aside.move(place)
    with place.opened() as store:
        assert store.find(TENANT, uid(10)) == a_state()


def test_a_store_without_a_marker_gets_one(place):
    id = place.filled()
    place.marker.unlink()
    with place.opened(create=False) as store:
        assert store.find(TENANT, uid(10)) == a_state()
    with place.opened() as store:
        store.prepare()
        assert store.mark().store == id
    assert id in place.marker.read_text()


def test_a_damaged_marker_is_no_proof_and_accept_writes_it_anew(place):
    id = place.filled()
    place.marker.write_text("")
    place.refused("marker: is damaged.*receiver store accept")
    with place.opened() as store:
        assert store.accept().store == id
        assert store.find(TENANT, uid(10)) == a_state()


def test_accept_gives_files_back_the_id_that_version_1_0_0_took_away(tmp_path):
    place = Place("filesystem", tmp_path / "states")
    id = place.filled()
    (place.path / "format").write_text('{"store": "external-storage-receiver", "format": 2}\n')
    place.refused("holds a store of an older version, which has no id yet, .*receiver store accept")
    with place.opened() as store:
        assert store.accept().store == id
        assert store.find(TENANT, uid(10)) == a_state()


def test_accept_fails_where_the_marker_cannot_be_replaced(tmp_path, monkeypatch):
    place = Place("filesystem", tmp_path / "states")
    place.filled()
    (place.path / "format").write_text(f'{{"store": "external-storage-receiver", "format": 2, "id": "{uid(7)}"}}\n')

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Marker, "replace", refuse)
    with place.opened() as store, pytest.raises(StoreMisplaced, match=r"states\.marker: cannot be replaced"):
        store.accept()
    place.marker.unlink()
    with place.opened() as store:
        assert store.accept().store == uid(7)


@pytest.mark.parametrize("how", ["removed", "emptied", "first"])
def test_init_makes_a_new_store_where_one_was(place, how):
    id = place.filled() if how != "first" else ""
    if how != "first":
        place.remove() if how == "removed" else place.empty()
    with place.opened(create=False) as store:
        made = store.init().store
        assert made != id
        assert store.find(TENANT, uid(10)) is None
    with place.opened() as store:
        assert store.mark().store == made
        assert store.save(TENANT, [a_state()], None).stored == 1


def test_init_refuses_where_a_store_is(place):
    id = place.filled()
    for _ in range(2):
        with place.opened() as store, pytest.raises(StoreMisplaced, match=f"holds the store {id}: move it away"):
            store.init()
        place.marker.unlink(missing_ok=True)
    with place.opened() as store:
        assert store.find(TENANT, uid(10)) == a_state()


def test_accept_makes_no_store(place):
    with place.opened() as store, pytest.raises(StoreMisplaced, match="no store to accept"):
        store.accept()
    assert not place.path.exists()
    assert not place.marker.exists()


def test_with_an_id_a_first_start_makes_nothing_and_init_makes_that_store(place):
    wanted, other = str(uuid.uuid4()), str(uuid.uuid4())
    match = f"is missing, but STORAGE_STORE_ID names the store {wanted}: .*receiver store init"
    place.refused(match, store_id=wanted)
    with place.opened(store_id=wanted) as store:
        assert store.init().store == wanted
        store.save(TENANT, [a_state()], None)
    place.refused(
        f"holds the store {wanted}, but STORAGE_STORE_ID names {other}: .*set STORAGE_STORE_ID to its id",
        store_id=other,
    )
    place.remove()
    place.marker.unlink()  # as in a pod whose disk went with it
    place.refused(match, store_id=wanted)
    place.empty()
    place.refused(f"is empty, but STORAGE_STORE_ID names the store {wanted}", store_id=wanted)


def _start(place: Place, begin, said) -> None:
    begin.wait()
    with place.opened() as store:
        store.prepare()
        said.put(store.mark().store)


def test_processes_that_start_at_once_on_a_new_store_agree_on_its_identity(place):
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        begin, said = context.Barrier(8), context.Queue()
        processes = [context.Process(target=_start, args=(place, begin, said)) for _ in range(8)]
        for process in processes:
            process.start()
        ids = {said.get(timeout=60) for _ in processes}
        for process in processes:
            process.join()
        assert len(ids) == 1
        assert ids.pop() in place.marker.read_text()
        place.remove()
        place.marker.unlink()
