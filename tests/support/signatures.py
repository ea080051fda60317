"""Signatures that only a test would make."""

import json

from receiver.mock_platform import tokens

SIGNATURE = "X-ManyWho-Signature"


def body_of(platform, *states):
    return json.dumps([{"token": tokens.seal_state(state, platform.keys)} for state in states]).encode()


def claims_of(platform, path, /, **changes):
    claims = tokens.request_claims(platform.tenant, path) | changes
    return {name: value for name, value in claims.items() if value is not ...}


def signed(platform, /, **changes):
    return lambda path: tokens.sign(claims_of(platform, path, **changes), platform.keys.platform)
