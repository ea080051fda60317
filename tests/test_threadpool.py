"""The threads of a worker: who computes, who waits, and that nobody is forgotten."""

import threading
import time
from contextlib import contextmanager

import pytest

from receiver.threadpool import Pool, blocking, current_seat, processors_for
from tests.support.waiting import pass_time, until

PATIENCE = 10  # seconds


@contextmanager
def pool_of(threads, computing, serve, **more):
    """A pool that is shut down at the end, and its threads with it."""
    before = set(threading.enumerate())
    pool = Pool(threads, computing, serve, **more)
    try:
        yield pool
    finally:
        pool.shutdown()
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_jobs_are_served_in_their_order_by_one_thread_that_keeps_its_turn():
    served = []
    with pool_of(8, 1, lambda job: served.append((job, threading.get_ident()))) as pool:
        for job in range(1000):
            pool.submit(job)
        until(lambda: len(served) == 1000)
    assert [job for job, _ in served] == list(range(1000))
    assert len({thread for _, thread in served}) == 1


@pytest.mark.parametrize("computing", [1, 2])
def test_no_more_compute_at_once_than_may(computing):
    guard, most, now, done = threading.Lock(), [0], [0], []

    def serve(job):
        for _ in range(3):
            with guard:
                now[0] += 1
                most[0] = max(most[0], now[0])
            pass_time(0.0005, "a job computes")
            with guard:
                now[0] -= 1
            with blocking():
                pass_time(0.001, "a job waits")
        done.append(job)

    with pool_of(8, computing, serve) as pool:
        for job in range(60):
            pool.submit(job)
        until(lambda: len(done) == 60)
    assert sorted(done) == list(range(60))
    assert most == [computing]


def test_who_waits_lets_others_compute_and_goes_on_before_new_jobs():
    told, gate = [], threading.Event()

    def serve(job):
        if job == "waits":
            with blocking():
                assert gate.wait(PATIENCE)
        elif job == "opens":
            gate.set()
            pass_time(0.05, "meanwhile the first one asks for a turn")
        told.append(job)

    with pool_of(2, 1, serve) as pool:
        for job in ("waits", "opens", "new"):
            pool.submit(job)
        until(lambda: len(told) == 3)
    assert told == ["opens", "waits", "new"]


def test_as_many_wait_as_there_are_threads_and_the_rest_is_served_after_them():
    gate, begun, done = threading.Event(), [], []

    def serve(job):
        begun.append(job)
        with blocking():
            assert gate.wait(PATIENCE)
        done.append(job)

    with pool_of(3, 1, serve) as pool:
        for job in range(7):
            pool.submit(job)
        until(lambda: len(begun) == 3)
        pass_time(0.05, "no more of them begin")
        assert len(begun) == 3
        gate.set()
        until(lambda: len(done) == 7)


def test_who_waits_for_a_client_does_not_count_and_threads_above_the_number_end():
    gate, begun, done = threading.Event(), [], []

    def serve(job):
        if job < 10:
            begun.append(job)
            with blocking(release_slot=True):
                assert gate.wait(PATIENCE)
        done.append(job)

    before = threading.active_count()
    with pool_of(2, 1, serve, most=7) as pool:
        for job in range(6):
            pool.submit(job)
        until(lambda: len(begun) == 6)
        pool.submit(10)  # the seventh thread is free
        until(lambda: done == [10])
        for job in range(6, 10):
            pool.submit(job)
        until(lambda: len(begun) == 7)
        pass_time(0.05, "no more of them begin")
        assert (len(begun), threading.active_count() - before) == (7, 7)
        gate.set()
        until(lambda: len(done) == 11)
        until(lambda: threading.active_count() - before == 2)
        pool.submit(11)
        until(lambda: len(done) == 12)


def test_as_many_as_there_are_threads_go_on_at_once_when_their_clients_do():
    gate, inside, most, done = threading.Event(), [], [], []
    guard = threading.Lock()

    def serve(job):
        with blocking(release_slot=True):
            assert gate.wait(PATIENCE)
        with guard:
            inside.append(job)
            most.append(len(inside))
        pass_time(0.001, "a job computes")
        with guard:
            inside.remove(job)
        done.append(job)

    with pool_of(1, 2, serve) as pool:
        for job in range(20):
            pool.submit(job)
        pass_time(0.05, "all that may begin have begun")
        gate.set()
        until(lambda: len(done) == 20)
    assert max(most) <= 2  # that may compute


def test_a_job_that_fails_costs_no_thread_and_no_turn(caplog):
    served = []

    def serve(job):
        if job % 2:
            raise ValueError("a defect")
        with blocking():
            served.append(job)

    with pool_of(2, 1, serve) as pool:
        for job in range(20):
            pool.submit(job)
        until(lambda: len(served) == 10)
    assert len([record for record in caplog.records if record.exc_info]) == 10


def test_a_wait_that_ends_with_an_error_ends_with_a_turn():
    served = []

    def serve(job):
        try:
            with blocking():
                raise TimeoutError
        except TimeoutError:
            served.append(job)

    with pool_of(2, 1, serve) as pool:
        for job in range(50):
            pool.submit(job)
        until(lambda: len(served) == 50)


def test_outside_a_pool_waiting_is_nothing():
    with blocking() as outer, blocking() as inner:
        assert outer.seat is inner.seat is None
    assert processors_for(1) >= processors_for(2) >= 1
    assert processors_for(10_000) == 1


def test_who_brings_jobs_is_woken_when_the_last_one_was_taken():
    gate, taken = threading.Event(), []

    def serve(job):
        taken.append(job)
        assert gate.wait(PATIENCE)

    with pool_of(1, 1, serve) as pool:
        pool.wait_until_drained(PATIENCE)  # there is none to wait for
        pool.submit("first")
        pool.submit("second")
        until(lambda: taken == ["first"])
        began = time.monotonic()
        pool.wait_until_drained(0.05)  # the second is not taken
        assert 0.05 <= time.monotonic() - began < PATIENCE / 2
        threading.Timer(0.05, gate.set).start()
        pool.wait_until_drained(PATIENCE)
        assert taken == ["first", "second"]


def test_nobody_is_forgotten_when_all_meet():
    count, done, guard = 4000, [0], threading.Lock()

    def serve(job):
        if job % 3 == 0:
            with blocking():
                pass
        if job % 7 == 0:
            with blocking():
                pass_time(0.0002, "a job waits")
        with guard:
            done[0] += 1

    with pool_of(8, 2, serve) as pool:
        bringing = [
            threading.Thread(target=lambda: [pool.submit(job) for job in range(count // 4)], daemon=True)
            for _ in range(4)
        ]
        for thread in bringing:
            thread.start()
        for _ in range(200):
            pool.wait_until_drained(0.001)
        until(lambda: done[0] == count)
        for thread in bringing:
            thread.join()


def test_a_thread_that_does_not_come_back_loses_permit_and_slot_to_others_and_gets_them_again_once():
    gate, seats, served = threading.Event(), [], []

    def serve(job):
        if job == "stuck":
            seats.append(current_seat())
            assert gate.wait(PATIENCE)  # outside of ``blocking``: it computes, as far as the pool knows
            seats[-1].resume()
            served.append(job)
        else:
            served.append(job)

    with pool_of(1, 1, serve) as pool:
        pool.submit("stuck")
        until(lambda: seats)
        pool.submit(1)
        pass_time(0.05, "nothing else begins")
        assert served == []
        seats[0].take_back(False)
        pass_time(0.05, "its slot is the only one")
        assert served == []
        for _ in range(3):  # more than once is once
            seats[0].take_back(True)
        until(lambda: served == [1])
        for job in range(2, 20):
            pool.submit(job)
        until(lambda: served == list(range(1, 20)))
        gate.set()
        until(lambda: served[-1] == "stuck")
        for job in range(20, 40):
            pool.submit(job)
        until(lambda: len(served) == 40)
        until(lambda: (pool._slots + len(pool._idle), pool._permits) == (1, 1))


def test_a_permit_that_was_taken_back_is_not_returned_twice_by_a_thread_that_blocks_or_ends():
    gates, seats, computing, most = [threading.Event() for _ in range(4)], [], [], []

    def serve(job):
        if isinstance(job, threading.Event):
            seats.append(current_seat())
            assert job.wait(PATIENCE)
            with blocking():
                pass
        computing.append(job)
        most.append(len(computing))
        pass_time(0.001, "a job computes")
        computing.remove(job)

    with pool_of(8, 1, serve) as pool:
        for number, gate in enumerate(gates, 1):
            pool.submit(gate)
            until(lambda number=number: len(seats) == number)
            seats[-1].take_back(True)
        for gate in gates:
            gate.set()
        for job in range(40):
            pool.submit(job)
        until(lambda: len(most) == 44)
        until(lambda: pool._permits == 1)
    assert max(most) == 1
