"""The keys of a receiver: ``keyring.py`` loads and finds them, ``passphrase.py`` opens protected ones.

``usage.py`` notes when each key was last used; ``listing.py`` shows the keys to people and to programs.
"""
