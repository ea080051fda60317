"""The admin listener: a process of its own that answers probes and serves metrics.

``listener.py`` answers, ``readiness.py`` checks, ``metrics.py`` adds metrics that are looked up at each scrape,
``counts.py`` counts what the stores hold, and ``client.py`` asks the admin listener of a running receiver.
"""
