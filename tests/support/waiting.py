"""Waiting for a condition, with a limit."""

import time


def until(condition, seconds=20):
    """Return what ``condition`` answers once that is true; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found
