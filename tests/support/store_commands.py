"""Stores filled for the commands of ``receiver store``."""

import contextlib
import itertools

from receiver.states import Instant
from receiver.stores import open_store
from tests.support.states import OTHER, a_state


@contextlib.contextmanager
def filled(url, *states):
    with contextlib.closing(open_store(url, 10)) as store:
        store.prepare()
        for tenant, own in itertools.groupby(states, key=lambda state: state.tenant):
            store.save(tenant, list(own), None)
        yield store


def some_states(count=30):
    mine = [
        a_state(number, expires_at=Instant.parse("2020-01-01T00:00:00Z") if number % 3 else None)
        for number in range(count)
    ]
    theirs = [
        a_state(number, "2026-05-05T05:05:05.1234567+02:00", tenant=OTHER, content="ü" * number) for number in range(5)
    ]
    return [*mine, *theirs]
