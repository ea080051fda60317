"""What takes long: short here and in the continuous integration, ``make outages`` makes it twenty times as much."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from receiver.stores import open_store
from tests.support.states import OTHER, TENANT, a_state
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

SCALE = int(os.environ.get("CHAOS", "1"))
STATES = 5_000 * SCALE
MOST_MEMORY = 150  # MiB


def copied(source, target, kill_at=None):
    """Run ``receiver store copy`` and return its JSON and its peak memory in MiB; killed once it brought ``kill_at``."""
    command = [sys.executable, "-m", "receiver", "store", "copy", "--from", source, "--to", target, "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if kill_at:
        with contextlib.closing(open_store(target, 10)) as store:

            def has_enough():
                with contextlib.suppress(Exception):
                    return sum(1 for _ in store.summaries()) >= kill_at

            until(lambda: process.poll() is not None or has_enough(), seconds=3600, pause=0.02)
        assert process.poll() is None, "it was done before it could be killed"
        process.send_signal(signal.SIGKILL)
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, AttributeError), open(f"/proc/{process.pid}/status") as file:
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", file.read()).group(1))
        pass_time(0.02, "between two looks at its memory")
    said, complained = process.communicate()
    assert process.returncode == (-signal.SIGKILL if kill_at else 0), complained
    return json.loads(said or "null"), peak / 1024


def test_a_large_store_goes_round_through_all_kinds_and_comes_back_the_same(postgresql, tmp_path):
    first, last = f"sqlite:///{tmp_path}/first.db", f"sqlite:///{tmp_path}/last.db"
    between = [postgresql.url(postgresql.new_database()), f"file://{tmp_path}/files"]
    noise = random.Random(5)
    began = time.monotonic()
    with contextlib.closing(open_store(first, 10)) as store:
        store.prepare()
        for start in range(0, STATES, 500):
            tenant = TENANT if start < STATES * 2 // 3 else OTHER
            states = [
                a_state(number, tenant=tenant, content=noise.randbytes(noise.randrange(100, 6000)).hex())
                for number in range(start, start + 500)
            ]
            store.save(tenant, states, None)
    print(f"\n{STATES:,} states made in {time.monotonic() - began:.0f} s")
    digests, peaks = [], []
    for source, target in zip([first, *between], [*between, last], strict=True):
        copied(source, target, kill_at=STATES // 10)  # long before the end: it goes on while it is counted
        began = time.monotonic()
        verdict, peak = copied(source, target)
        rows = verdict["tenants"]
        assert 0 < sum(row["copied"] for row in rows) <= STATES - STATES // 10
        assert sum(row["states"] for row in rows) == STATES
        assert all(row["digest"] == row["digestThere"] for row in rows)
        digests.append([row["digest"] for row in rows])
        peaks.append(peak)
        print(f"rest to {verdict['to'].split(',')[0]} in {time.monotonic() - began:.0f} s, peak {peak:.0f} MiB")
    assert digests == [digests[0]] * 3
    assert max(peaks) < MOST_MEMORY
