"""Our own receiver, careless: each load lets what it loaded get into whatever may end in a log.

``python -m tests.support.leaking_receiver serve`` runs ``receiver serve`` so; tests/telemetry/test_leaks.py reads what it prints.
"""

import atexit
import gc
import logging
import threading
import warnings

from receiver import commands, envelope
from receiver.telemetry.logs import log


class Unraisable:
    """What fails where nobody can catch it."""

    def __init__(self, text):
        self.text = text

    def __del__(self):
        raise ValueError(self.text)


def fail(text):
    raise RuntimeError(text)


def seal_carelessly(state, platform_key, receiver_key, now, _compression):
    text = state.content.text
    log.debug("%s %r %s %r", state, state, f"{state.content}", [state.content])
    log.debug("%s %r %r", platform_key, receiver_key, receiver_key.handle)
    log.warning("%d of them", text)  # cannot be formatted
    for level in (logging.DEBUG, logging.INFO):
        logging.getLogger("a.library").log(level, "got %s", text)
    warnings.warn(f"strange: {text}", RuntimeWarning, stacklevel=1)
    thread = threading.Thread(target=fail, args=[text])
    thread.start()
    thread.join()
    Unraisable(text)
    gc.collect()
    atexit.register(fail, text)
    try:
        fail(text)
    except RuntimeError as cause:
        raise ValueError(text) from cause


if __name__ == "__main__":
    envelope.seal_state = seal_carelessly
    commands.main()
