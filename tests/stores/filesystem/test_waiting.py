"""Locks of the store of files: who waits, for how long, and in which order."""

import contextlib
import os
import signal
import threading
import time
from functools import partial

import pytest

from receiver.problems import StoreUnavailable
from receiver.stores.filesystem import durable
from tests.support.filesystem import NEW, processes
from tests.support.states import OTHER, TENANT, a_receipt, a_state, uid
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow


def test_a_lock_that_another_process_holds_too_long_is_an_outage_in_time(store, root):
    def hold():
        with durable.locked(str(root / TENANT), time.monotonic()):
            os.write(out, b"x")
            pass_time(60, "it holds the lock until it is killed")

    store.save(TENANT, [a_state()], None)
    ready, out = os.pipe()
    store.timeout = 0.3
    with processes(hold) as [holder]:
        assert os.read(ready, 1) == b"x"
        for change in (
            lambda: store.save(TENANT, [a_state(updated=NEW)], a_receipt()),
            lambda: store.delete(TENANT, [uid(10)], None),
        ):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                change()
            assert 0.3 <= time.monotonic() - began < 1
        assert store.find(TENANT, uid(10)) == a_state()
        assert store.save(OTHER, [a_state(tenant=OTHER)], None).stored == 1
        os.kill(holder, signal.SIGKILL)
        store.timeout = 5
        assert store.save(TENANT, [a_state(updated=NEW)], a_receipt()).stored == 1
    os.close(ready), os.close(out)


def test_a_process_that_was_forked_under_a_lock_does_not_keep_it(store, root):
    store.save(TENANT, [a_state()], None)
    with contextlib.ExitStack() as holding:
        holding.enter_context(durable.locked(str(root / TENANT), time.monotonic()))
        with processes(partial(pass_time, 60, "it lives until it is killed")) as [child]:
            holding.close()
            store.timeout = 0.2
            assert store.save(TENANT, [a_state(updated=NEW)], None).stored == 1
            os.kill(child, signal.SIGKILL)


def test_threads_wait_for_each_other_no_longer_than_the_time_out(store, root):
    store.save(TENANT, [a_state()], None)
    store.timeout = 0.3
    told = []

    def save():
        began = time.monotonic()
        try:
            store.save(TENANT, [a_state(updated=NEW)], None)
        except StoreUnavailable:
            told.append(time.monotonic() - began)

    threads = [threading.Thread(target=save) for _ in range(4)]
    with durable.locked(str(root / TENANT), time.monotonic()):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(told) == 4
    assert max(told) < 1
