"""A simulation of the platform's side of the contract. Imports nothing from the rest of the package.

It is written from the protocol page alone and uses jwcrypto as that library's documentation shows. So the simulated
platform and the receiver check each other.
"""
