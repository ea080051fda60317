"""The marker beside a store: it is made once, goes forward only, and is durable, whole and private."""

import fcntl
import multiprocessing
import os
import stat
import threading
from pathlib import Path

import pytest

from receiver.problems import StoreMisplaced
from receiver.stores.marker import Mark, Marker

STORE = "0f0e0d0c-0b0a-4908-8706-050403020100"
OTHER = "10111213-1415-4617-9819-1a1b1c1d1e1f"


def mark(generation: int, store: str = STORE, token: str = "00112233445566ff") -> Mark:
    return Mark(store, generation, token)


@pytest.fixture
def marker(tmp_path: Path) -> Marker:
    return Marker(tmp_path / "store-marker")


def test_a_marker_that_is_not_there_says_nothing(marker: Marker) -> None:
    assert marker.read() is None


def test_a_marker_says_what_it_was_made_with(marker: Marker) -> None:
    assert marker.make(mark(7)) == mark(7)
    assert marker.read() == mark(7)
    assert os.listdir(marker.path.parent) == [marker.path.name]


def test_only_the_owner_may_use_it_whatever_the_umask(marker: Marker) -> None:
    before = os.umask(0)
    try:
        marker.make(mark(0))
    finally:
        os.umask(before)
    assert stat.S_IMODE(marker.path.stat().st_mode) == 0o600


def test_the_first_that_makes_it_decides(marker: Marker) -> None:
    marker.make(mark(3))
    assert marker.make(mark(0, OTHER)) == mark(3)
    assert marker.read() == mark(3)


def test_replacing_it_goes_back_too(marker: Marker) -> None:
    marker.make(mark(9))
    marker.replace(mark(2, OTHER))
    assert marker.read() == mark(2, OTHER)


def test_it_advances_and_never_goes_back(marker: Marker) -> None:
    marker.make(mark(1))
    marker.advance(mark(5, token="a" * 16))
    marker.advance(mark(4, token="b" * 16))
    assert marker.read() == mark(5, token="a" * 16)


def test_a_missing_marker_is_made_when_the_store_goes_on(marker: Marker) -> None:
    marker.make(mark(1))
    marker.advance(mark(2))
    marker.path.unlink()
    marker.advance(mark(3))
    assert marker.read() == mark(3)


def test_a_replaced_marker_is_the_one_that_advances(marker: Marker) -> None:
    marker.make(mark(8))
    marker.advance(mark(9))
    Marker(marker.path).replace(mark(2))
    marker.advance(mark(3))
    assert marker.read() == mark(3)


def test_a_marker_of_another_store_does_not_advance(marker: Marker) -> None:
    marker.make(mark(1, OTHER))
    with pytest.raises(StoreMisplaced, match=f"names the store {OTHER}, but the one in use is {STORE}"):
        marker.advance(mark(2))
    assert marker.read() == mark(1, OTHER)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: b"",
        lambda line: line[:-1],
        lambda line: line + b"x",
        lambda line: line.replace(b"generation 0", b"generation 1"),
        lambda line: line.replace(b"0f0e", b"0f0f"),
        lambda line: bytes(len(line)),
    ],
)
def test_a_damaged_marker_is_refused_with_the_remedy(marker: Marker, damage) -> None:
    marker.make(mark(1))
    marker.path.write_bytes(damage(marker.path.read_bytes()))
    for use in (marker.read, lambda: marker.make(mark(1)), lambda: marker.advance(mark(2))):
        with pytest.raises(StoreMisplaced, match=r"is damaged.*receiver store accept"):
            use()
    marker.replace(mark(1))
    assert marker.read() == mark(1)


def test_what_a_killed_process_left_is_no_obstacle(marker: Marker) -> None:
    marker.path.with_name(f".{marker.path.name}").write_bytes(b"x" * 500)
    marker.make(mark(1))
    assert marker.read() == mark(1)
    assert os.listdir(marker.path.parent) == [marker.path.name]


def _make(path: Path, number: int, begin, said) -> None:
    begin.wait()
    said.put(Marker(path).make(mark(number, token=f"{number:016x}")))


def test_processes_that_make_it_at_once_agree(marker: Marker) -> None:
    context = multiprocessing.get_context("fork")
    begin, said = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_make, args=(marker.path, number, begin, said)) for number in range(8)]
    for process in processes:
        process.start()
    assert {said.get(timeout=30) for _ in processes} == {marker.read()}
    for process in processes:
        process.join()
    assert os.listdir(marker.path.parent) == [marker.path.name]


def _advance(marker: Marker, numbers: range) -> None:
    for number in numbers:
        marker.advance(mark(number, token=f"{number:016x}"))


def test_forked_processes_and_threads_that_advance_it_at_once_end_at_the_last(marker: Marker) -> None:
    marker.make(mark(0))
    marker.advance(mark(1))  # so that the processes inherit a descriptor
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_advance, args=(marker, range(start, 2000, 4))) for start in (2, 3)]
    workers += [threading.Thread(target=_advance, args=(marker, range(start, 2000, 4))) for start in (4, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert marker.read() == mark(1999, token=f"{1999:016x}")


def test_a_marker_that_is_read_while_it_is_written_is_not_taken_for_damaged(marker: Marker, monkeypatch) -> None:
    marker.make(mark(1))
    before, flock = marker.path.read_bytes(), fcntl.flock
    marker.replace(mark(2, token="f" * 16))
    after = marker.path.read_bytes()
    marker.path.write_bytes(after[:80] + before[80:])

    def wait(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_SH:
            marker.path.write_bytes(after)  # by the process that has the lock
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", wait)
    assert marker.read() == mark(2, token="f" * 16)
