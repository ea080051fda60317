"""What may wait for slow clients: who has to go, and that nothing is counted twice or for ever."""

import threading
import time

import pytest

from receiver.server import capacity
from receiver.server.capacity import Ledger, Permits, Waiter
from tests.support.waiting import until


class Slow(Waiter):
    """A waiter that came ``age`` seconds ago and has moved ``moved`` bytes; remembers whether it was dropped."""

    def __init__(self, tenant, signature="s", held=10, moved=0, age=100.0):
        super().__init__(tenant, signature, held)
        self.moved, self.was_dropped = moved, False
        self.began -= age

    def drop(self):
        self.was_dropped = True


def entered(ledger, *waiters):
    for one in waiters:
        ledger.enter(one)
    return [one.was_dropped for one in waiters]


def test_the_slowest_of_a_signature_goes_when_it_holds_more_than_a_fourth():
    others = [Slow("b", moved=0), Slow("a", "another", moved=0)]
    mine = [Slow("a", held=12, moved=moved) for moved in (300, 100, 200)]
    assert entered(Ledger(100, 100), *others, *mine) == [False, False, False, True, False]


def test_the_slowest_of_a_tenant_goes_when_it_holds_more_than_half():
    mine = [Slow("a", str(moved), held=20, moved=moved) for moved in (200, 100, 300)]
    assert entered(Ledger(100, 100), Slow("b"), *mine) == [False, False, True, False]


def test_where_the_worker_is_full_the_largest_tenant_gives():
    small = [Slow("a", held=20), Slow("d", held=20)]
    large = [Slow("b", str(number), held=24, moved=1000 + number) for number in range(2)]
    ledger = Ledger(100, 100)
    entered(ledger, *small, *large)
    newest = Slow("c", held=20, age=0)
    assert entered(ledger, newest) == [False]
    assert [one.was_dropped for one in (*small, *large)] == [False, False, True, False]
    assert ledger.held() == 84


def test_places_are_shared_as_bytes_are():
    mine = [Slow("a", str(number), held=0, moved=number) for number in range(5)]
    assert entered(Ledger(100, 8), *mine) == [True, False, False, False, False]


def test_one_alone_may_be_larger_than_its_share_and_the_newest_is_not_its_own_victim():
    ledger = Ledger(100, 100)
    first, second = Slow("a", held=300), Slow("a", held=300, age=0)
    assert entered(ledger, first, second) == [True, False]
    assert ledger.held() == 300


def test_a_body_that_is_whole_or_has_just_begun_is_not_called_slow():
    slow = Slow("a", "1", held=15, moved=1 << 30)
    new, whole, newest = (Slow("a", number, held=15, age=0 if number == "2" else 100) for number in "234")
    whole.is_whole = True
    assert entered(Ledger(100, 100), slow, new, whole, newest) == [True, False, False, False]


def test_one_that_grows_makes_others_go_and_one_that_was_dropped_changes_nothing():
    ledger = Ledger(100, 100)
    one, other = Slow("a", moved=5), Slow("a", moved=9)
    entered(ledger, one, other)
    ledger.resize(other, 20)
    assert (one.was_dropped, other.was_dropped, ledger.held()) == (True, False, 20)
    ledger.resize(one, 50)
    ledger.leave(one)
    assert ledger.held() == 20
    ledger.leave(other)
    ledger.leave(other)
    assert ledger.held() == 0
    assert ledger._groups == {}


def test_a_free_permit_goes_to_the_tenant_that_has_fewest():
    permits, granted = Permits(2), []
    assert permits.take("a")
    assert permits.take("a")
    assert not permits.take("b")

    def wait(tenant):
        assert permits.wait(tenant, 10, 10, lambda: False)
        granted.append(tenant)

    threads = []
    for number, tenant in enumerate(("a", "a", "b")):
        threads.append(threading.Thread(target=wait, args=(tenant,)))
        threads[-1].start()
        until(lambda number=number: len(permits._queue) == number + 1)
    permits.release("a")
    until(lambda: granted == ["b"])
    for tenant in ("a", "b"):
        permits.release(tenant)
    for thread in threads:
        thread.join()
    for _ in range(2):
        permits.release("a")
    assert (permits._free, permits._held, permits._queue) == (2, {}, [])


@pytest.mark.parametrize(
    ("stall", "most", "is_dropped"), [(0.1, 10, lambda: False), (10, 0.1, lambda: False), (10, 10, lambda: True)]
)
def test_who_gets_no_permit_gives_up_and_costs_none(monkeypatch, stall, most, is_dropped):
    monkeypatch.setattr(capacity, "_LOOK", 0.05)
    permits = Permits(1)
    assert permits.take("a")
    began = time.monotonic()
    assert not permits.wait("b", stall, most, is_dropped)
    assert time.monotonic() - began < 5
    permits.release("a")
    assert permits.take("b")
