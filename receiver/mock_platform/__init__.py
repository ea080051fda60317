"""The platform's side of the contract, simulated. Imports nothing from the rest of receiver.

It is written from the protocol page alone and uses jwcrypto as its documentation shows, so that the two sides check
each other.
"""
