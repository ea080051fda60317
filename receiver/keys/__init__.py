"""The keys of a receiver: ``keyring.py`` loads and finds them, ``passphrase.py`` opens encrypted ones.

``usage.py`` notes when each key was last used.
"""
