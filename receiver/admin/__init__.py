"""The admin listener: a process of its own that tells whether the receiver is well, and what it counts.

``listener.py`` answers, ``figures.py`` adds to what workers count what can be looked up when it is asked for,
``tallies.py`` counts what stores hold.
"""
