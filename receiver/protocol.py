"""Constants of the wire contract. Sections are those of the protocol's page in the manual."""

BASE_PATH = "/api/storage/1"  # where the API begins (section 2)

# Headers of a request (section 3.1).
SIGNATURE = "X-ManyWho-Signature"
PLATFORM_KEY_ID = "X-ManyWho-Platform-Key-ID"
RECEIVER_KEY_ID = "X-ManyWho-Receiver-Key-ID"

ISSUER = "manywho"  # the platform, as iss of what it sends and aud of replies

# Seconds.
SIGNATURE_LIFETIME = 5 * 60  # the furthest ahead that exp of a signature may be (section 3.5)
TOKEN_LIFETIME = 300 * 60  # likewise, of a state's token
REPLY_LIFETIME = 10 * 60  # from now to exp of a reply
REPLY_BACKDATED = 2 * 60  # from nbf of a reply to now
CLOCK_SKEW = 30.0  # granted on exp and nbf by default
