"""``receiver doctor``: what is wrong with a receiver, its surroundings and its way to the platform, and what mends it.

``case.py`` tells who is looked at, ``examination.py`` calls the checks, a module for each subject; ``roundtrip.py``
plays the platform. Nothing here changes a store, a key or a setting; only ``--roundtrip`` writes, what it takes away.
"""
