"""Our own receiver, with a leak: each load keeps memory, and some keep a descriptor and a thread.

``python -m tests.support.hoarding_receiver serve`` runs ``receiver serve`` so; tests/chaos/test_soak.py has to notice.
"""

import itertools
import os
import threading

from receiver import commands, envelope

_EVERY = 20  # loads for each descriptor and thread
_BYTES = 1 << 20
kept: list = []
_loads = itertools.count()
_sealed = envelope.seal_state


def seal_and_keep(*words):
    """Seal as ever, and keep something."""
    kept.append(os.urandom(_BYTES))
    if next(_loads) % _EVERY == 0:
        kept.append(os.open("/dev/null", os.O_RDONLY))
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return _sealed(*words)


if __name__ == "__main__":
    envelope.seal_state = seal_and_keep
    commands.main()
