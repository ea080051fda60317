"""Compact JOSE tokens.

``compact.py`` reads their form, ``jws.py`` signs and verifies, ``jwe.py`` encrypts and decrypts. ``p384.py`` is the one
seam to the provider of the curve. ``key_texts.py`` reads what people put where a JWK belongs.
"""
