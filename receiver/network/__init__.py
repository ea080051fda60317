"""Sockets and peers: ``listeners.py`` opens sockets, ``addresses.py`` judges clients, ``tls.py`` loads certificates."""
