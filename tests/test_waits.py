"""The wait of a request for its store: only one of two threads answers it."""

import threading
from concurrent.futures import ThreadPoolExecutor

from receiver import waits
from receiver.waits import GRACE, Wait


def test_the_first_to_claim_a_request_answers_it():
    ours, theirs = Wait(None), Wait(None)
    assert ours.claim()
    assert ours.claim()  # by the same thread, again
    assert not ours.give_up()
    assert theirs.give_up()
    assert not theirs.give_up()
    assert not theirs.claim()


def test_of_two_threads_at_once_one_answers():
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2000):
            wait, both = Wait(None), threading.Barrier(2)

            def at_once(act, both=both):
                both.wait(10)
                return act()

            assert sum(pool.map(at_once, (wait.claim, wait.give_up))) == 1


def test_who_gives_a_request_up_tells_the_store_of_its_call():
    told = []
    wait = Wait(None)
    wait.enter(lambda: told.append("first"), True)
    wait.leave()
    wait.enter(lambda: told.append("second"), True)
    assert wait.give_up()
    assert told == ["second"]


def test_all_calls_of_a_request_share_its_time():
    wait = Wait(None)
    wait.begin(10)
    until = wait.until
    wait.begin(10)
    assert wait.until == until
    assert GRACE < 5


def test_a_thread_has_the_wait_of_the_request_that_it_serves():
    assert waits.current() is None
    wait = waits.start()
    assert waits.current() is wait
    waits.end()
    assert waits.current() is None
