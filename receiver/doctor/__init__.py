"""``receiver doctor``: finds what is wrong with a receiver, its machine and the network path to it, and prints the fix.

``subject.py`` finds the receiver to examine. ``runner.py`` runs the modules of ``checks/``. ``checks/roundtrip.py``
plays the platform. Nothing here changes a store, a key or a setting; only ``--roundtrip`` writes, and it removes what
it wrote.
"""
