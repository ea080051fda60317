"""Group commit: who does whose change, in which order, and what becomes of those who wait too long."""

import threading
import time
from contextlib import contextmanager

import pytest

from receiver.problems import StoreUnavailable
from receiver.stores.group_commit import GroupCommit
from tests.support.waiting import pass_time, until


class AccessPolicy:
    """A ``commit`` that waits before its first group until it is opened, and answers each change with ("done", it)."""

    def __init__(self):
        self.groups: list[list] = []
        self.entered, self.opened = threading.Event(), threading.Event()
        self.fault: BaseException | None = None

    def __call__(self, changes):
        self.groups.append(list(changes))
        self.entered.set()
        assert self.opened.wait(10)
        if self.fault:
            fault, self.fault = self.fault, None
            raise fault
        return [("done", change) for change in changes]


class Caller(threading.Thread):
    """A thread that submits one change, and keeps what it is told."""

    def __init__(self, group, change, timeout=10.0):
        super().__init__()
        self.group, self.change, self.timeout = group, change, timeout
        self.told = None
        self.start()

    def run(self):
        try:
            self.told = self.group.submit(self.change, self.timeout)
        except BaseException as cause:
            self.told = cause


def queued(group, change, count, timeout=10.0) -> Caller:
    """Return the caller of ``change``, once there are ``count`` in the queue."""
    caller = Caller(group, change, timeout)
    until(lambda: len(group._queue) == count)
    return caller


@pytest.fixture
def gate():
    return AccessPolicy()


@pytest.fixture
def group(gate):
    return GroupCommit(gate)


@pytest.fixture
def first(group, gate):
    """The caller whose change 0 is being done, until the gate is opened."""
    caller = Caller(group, 0)
    assert gate.entered.wait(10)
    return caller


def told_by(gate, *callers) -> list:
    gate.opened.set()
    for caller in callers:
        caller.join(10)
        assert not caller.is_alive()
    return [caller.told for caller in callers]


def test_who_comes_alone_is_done_at_once(gate, group):
    gate.opened.set()
    assert [group.submit(number, 0) for number in range(3)] == [("done", number) for number in range(3)]
    assert gate.groups == [[0], [1], [2]]


def test_those_who_wait_are_done_together_in_the_order_in_which_they_came(gate, group, first):
    waiting = [queued(group, number, number) for number in range(1, 9)]
    assert told_by(gate, first, *waiting) == [("done", number) for number in range(9)]
    assert gate.groups == [[0], list(range(1, 9))]


def test_each_gets_its_own_outcome_an_exception_among_them():
    gate = threading.Event()

    def commit(changes):
        assert gate.wait(10)
        return [ValueError(change) if change % 2 else change for change in changes]

    group = GroupCommit(commit)
    first = Caller(group, 0)
    until(lambda: group._busy and not group._queue)
    waiting = [queued(group, number, number) for number in range(1, 4)]
    gate.set()
    for caller in (first, *waiting):
        caller.join(10)
    assert [str(caller.told) for caller in (first, *waiting)] == ["0", "1", "2", "3"]
    assert [type(caller.told) for caller in (first, *waiting)] == [int, ValueError, int, ValueError]


@pytest.mark.parametrize("fault", [OSError("gone"), KeyboardInterrupt()])
def test_an_exception_of_the_commit_reaches_all_of_its_group_and_the_next_group_goes_on(gate, group, first, fault):
    waiting = [queued(group, number, number) for number in range(1, 4)]
    real = gate.__call__

    def failing(changes):
        if 1 in changes:
            later.append(queued(group, 9, 1))
            gate.fault = fault
        return real(changes)

    later: list[Caller] = []
    group._commit = failing
    assert told_by(gate, first) == [("done", 0)]
    assert told_by(gate, *waiting) == [fault] * 3
    assert told_by(gate, *later) == [("done", 9)]
    assert gate.groups == [[0], [1, 2, 3], [9]]
    assert group.submit(10, 0) == ("done", 10)


def test_who_waits_too_long_withdraws_and_its_change_is_never_done(gate, group, first):
    before = queued(group, 1, 1)
    impatient = queued(group, 2, 2, timeout=0.05)
    impatient.join(10)
    assert isinstance(impatient.told, StoreUnavailable)
    after = queued(group, 3, 2)
    assert told_by(gate, first, before, after) == [("done", 0), ("done", 1), ("done", 3)]
    assert gate.groups == [[0], [1, 3]]


def test_who_is_being_done_when_its_time_is_over_is_told_what_became_of_it(gate, group, first):
    second = queued(group, 1, 1)
    third = queued(group, 2, 2, timeout=0.2)
    real, slow = gate.__call__, threading.Event()
    group._commit = lambda changes: (slow.wait(0.4), real(changes))[1]
    assert told_by(gate, first, second, third) == [("done", 0), ("done", 1), ("done", 2)]


def test_who_is_being_done_by_one_who_does_not_come_back_is_not_held_for_ever(gate, group, first, monkeypatch):
    monkeypatch.setattr("receiver.stores.group_commit._COMMITTING", 0.1)
    never = threading.Event()
    second, third = queued(group, 1, 1), queued(group, 2, 2, timeout=0.2)
    real = gate.__call__
    group._commit = lambda changes: (never.wait(10), real(changes))[1]
    assert told_by(gate, first) == [("done", 0)]
    third.join(10)
    assert isinstance(third.told, StoreUnavailable)
    assert "unknown" in third.told.cause
    assert second.told is None
    never.set()
    assert told_by(gate, second) == [("done", 1)]


class GuardAfterTime:
    """The guard of ``group``, which whoever waits for its turn in vain gets only when it has been made leader."""

    def __init__(self, group):
        self.lock, self.entry = group._guard, group._queue[0]
        self.in_vain = threading.Event()

    def __enter__(self):
        if isinstance(threading.current_thread(), Caller) and threading.current_thread().change == self.entry.change:
            self.in_vain.set()
            until(lambda: self.entry.leads)
        self.lock.acquire()

    def __exit__(self, *_exception):
        self.lock.release()


def test_who_was_made_leader_as_its_time_was_over_still_does_the_work(gate, group, first):
    late = queued(group, 1, 1, timeout=0.3)
    group._guard = GuardAfterTime(group)
    assert group._guard.in_vain.wait(10)
    assert late.told is None
    assert told_by(gate, first, late) == [("done", 0), ("done", 1)]
    assert gate.groups == [[0], [1]]


def test_what_must_be_held_is_held_for_each_group_and_who_comes_meanwhile_is_of_it(gate):
    holding, free, seen = [], threading.Event(), []

    @contextmanager
    def held(deadline):
        seen.append(deadline - time.monotonic())
        assert free.wait(10)
        holding.append(True)
        yield
        holding.pop()

    def commit(changes):
        assert holding == [True]
        return gate(changes)

    group = GroupCommit(commit, held)
    waiting = [queued(group, number, number + 1) for number in range(5)]
    free.set()
    assert told_by(gate, *waiting) == [("done", number) for number in range(5)]
    assert gate.groups == [list(range(5))]
    assert 9 < seen[0] <= 10
    assert not holding


def test_who_cannot_hold_what_it_must_in_its_time_fails_alone(gate):
    free = threading.Event()

    @contextmanager
    def held(deadline):
        if not free.wait(max(0, deadline - time.monotonic())):
            raise StoreUnavailable("held by another")
        yield

    group = GroupCommit(gate, held)
    began = time.monotonic()
    first = queued(group, 0, 1, timeout=0.1)
    second = queued(group, 1, 2, timeout=0.2)
    third = queued(group, 2, 3)
    first.join(10), second.join(10)
    assert time.monotonic() - began < 5
    assert [type(caller.told) for caller in (first, second)] == [StoreUnavailable] * 2
    free.set()
    assert told_by(gate, third) == [("done", 2)]
    assert gate.groups == [[2]]


def test_many_threads_have_each_change_done_once_one_group_at_a_time():
    done, working = [], threading.Lock()

    def commit(changes):
        assert working.acquire(blocking=False)
        done.extend(changes)
        pass_time(0, "others get their turn")
        working.release()
        return [-change for change in changes]

    group, told = GroupCommit(commit), {}

    def run(start):
        told[start] = [group.submit(start + number, 10) for number in range(500)]

    threads = [threading.Thread(target=run, args=(1000 * number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {start: [-(start + number) for number in range(500)] for start in range(0, 16_000, 1000)}
    assert sorted(done) == sorted(start + number for start in told for number in range(500))
    for start in told:
        assert [change for change in done if start <= change < start + 1000] == list(range(start, start + 500))
