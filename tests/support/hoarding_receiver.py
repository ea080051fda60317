"""Our own receiver, with a leak: from the first load on, each worker keeps more memory, descriptors and threads.

``python -m tests.support.hoarding_receiver serve`` runs ``receiver serve`` so; tests/chaos/test_soak.py has to notice.
"""

import os
import threading

from receiver import commands, envelope

_EVERY = 0.5  # seconds
_BYTES = 4 << 20
_MOST = 150
kept: list = []
_never = threading.Event()
_sealed = envelope.seal_state


def keep_more():
    """Keep something of each kind, again and again; not without end."""
    while len(kept) < _MOST and not _never.wait(_EVERY):
        waiting = threading.Thread(target=_never.wait, daemon=True)
        waiting.start()
        kept.append((os.urandom(_BYTES), [os.open("/dev/null", os.O_RDONLY) for _ in range(3)], waiting))


def seal_and_keep(*words):
    """Seal as ever, and begin to keep."""
    if not kept:
        kept.append(None)
        threading.Thread(target=keep_more, daemon=True).start()
    return _sealed(*words)


if __name__ == "__main__":
    envelope.seal_state = seal_and_keep
    commands.main()
