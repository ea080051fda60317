"""Waiting: for a condition, with a limit; or for time to pass, where that is the subject."""

import time


def until(condition, seconds=20, message="", pause=0.05):
    """Return what ``condition`` answers once that is true; fail with ``message`` when it is not in time.

    ``message`` is a text or a function that makes one. It looks again after a millisecond first, and then less often,
    but every ``pause`` seconds.
    """
    deadline, shortly = time.monotonic() + seconds, 0.001
    while not (found := condition()):
        assert time.monotonic() < deadline, message() if callable(message) else message
        time.sleep(min(shortly, pause))
        shortly *= 2
    return found


def pass_time(seconds, reason):
    """Let ``seconds`` pass. ``reason`` says why it is a duration and no condition: it is the subject, or nothing shows."""
    assert reason
    time.sleep(seconds)
