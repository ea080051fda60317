"""Faults in how times of states are read, kept and compared."""

import dataclasses

from receiver import states
from receiver.stores.sqlite import SqliteStore, rows
from tests.support.faults.declaring import fault


@fault("save.older-ignored", "save.any-order")
def older_wins():
    rows._UPSERT = rows._UPSERT.partition("where (excluded")[0]


@fault("save.equal-replaces")
def ignores_an_equal_updatedAt():
    rows._UPSERT = rows._UPSERT.replace(">=", ">")


def nanoseconds(change):
    whole = states.Instant.parse

    def parse(text):
        instant = whole(text)
        return dataclasses.replace(instant, nanoseconds=change(instant))

    states.Instant.parse = staticmethod(parse)


@fault("times.digits")
def wants_seven_fraction_digits():
    def change(instant):
        if instant.text[19:20] != "." or len(instant.text.rstrip("Z")) != 27:
            raise ValueError("not seven digits")
        return instant.nanoseconds

    nanoseconds(change)


@fault("times.ticks-tie")
def stores_times_rounded_to_microseconds():
    stores_rounded_times(1_000)


@fault("times.microseconds")
def keeps_whole_seconds():
    nanoseconds(lambda instant: instant.nanoseconds // 10**9 * 10**9)


@fault("times.ticks", "times.nanoseconds")
def compares_only_to_microseconds():
    nanoseconds(lambda instant: instant.nanoseconds // 1000 * 1000)


@fault("times.offsets-order", "times.offsets-same")
def ignores_the_offset():
    whole = states.Instant.parse
    nanoseconds(lambda instant: whole(instant.text[:19] + "Z").nanoseconds)


@fault("times.digits-same")
def compares_times_as_texts():
    nanoseconds(lambda instant: int.from_bytes(instant.text.encode().ljust(36, b"\0")[:36]) % 2**62)


def stores_rounded_times(unit):
    """Keep updatedAt in whole ``unit`` nanoseconds, rounded, and compare it with what comes in as it came."""
    whole = SqliteStore.save

    def rounded(instant):
        return dataclasses.replace(instant, nanoseconds=(instant.nanoseconds + unit // 2) // unit * unit)

    def save(self, tenant, found, receipt):
        newer = []
        for state in found:
            stored = self.find(tenant, state.id)
            if stored is None or state.updated_at.nanoseconds >= rounded(stored.updated_at).nanoseconds:
                newer.append(dataclasses.replace(state, updated_at=rounded(state.updated_at)))
        return whole(self, tenant, newer, receipt)

    SqliteStore.save = save
