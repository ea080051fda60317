"""Faults in what proves who calls: signatures, their headers and keys."""

import contextlib
from types import SimpleNamespace

from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from receiver import body, encoding, envelope, problems, signature
from receiver.jose import compact, jwe, jws, p384
from receiver.problems import SignatureRefused
from tests.support.faults.declaring import fault, parts_of, raw_of, trust_without_keys
from tests.support.faults.http import middleware


def verify_also(accepts):
    """Let both rooms take a token that ``accepts`` returns a payload for."""
    trust_without_keys()

    def verify(token, find_key):
        with contextlib.suppress(Exception):
            if payload := accepts(token, find_key):
                return payload, None
        return jws.verify_jws(token, find_key)

    signature.verify_jws = envelope.verify_jws = verify


@fault("signature.alg-none", "tokens.inner-alg-none")
def accepts_alg_none():
    def accepts(token, _find):
        header, payload = parts_of(token)
        return payload if header["alg"].lower() == "none" else None

    verify_also(accepts)


@fault("signature.hmac-public-key")
def accepts_an_hmac_with_the_public_key():
    def accepts(token, find):
        header, payload = parts_of(token)
        signed, _, mac = token.rpartition(b".")
        x, _ = p384.point_of(find(header["kid"]).handle)
        public = JWK(kty="oct", k=encoding.encode_base64url(x).decode())
        JWA.signing_alg(header["alg"]).verify(public, signed, raw_of(mac))
        return payload if header["alg"].startswith("HS") else None

    verify_also(accepts)


@fault("signature.embedded-key", "tokens.inner-embedded-key")
def trusts_the_key_in_the_token():
    def accepts(token, _find):
        header, payload = parts_of(token)
        signed, _, mac = token.rpartition(b".")
        JWA.signing_alg("ES384").verify(JWK(**header["jwk"]), signed, raw_of(mac))
        return payload

    verify_also(accepts)


@fault("signature.tampered", "signature.forged-kid", "signature.flipped")
def does_not_verify_request_signatures():
    def verify(token, find_key):
        header, payload = parts_of(token)
        key = find_key(header["kid"])
        if header["alg"] != "ES384" or key is None:
            raise compact.TokenFault("")
        return payload, key

    signature.verify_jws = verify


@fault("signature.segments", "signature.base64-spelling")
def accepts_base64_padding():
    def accepts(token, find_key):
        if b"=" not in token:
            return None
        header, payload = parts_of(token)
        signed, _, mac = token.rpartition(b".")
        x, y = (encoding.encode_base64url(number).decode() for number in p384.point_of(find_key(header["kid"]).handle))
        public = JWK(kty="EC", crv="P-384", x=x, y=y)
        JWA.signing_alg("ES384").verify(public, signed, raw_of(mac.rstrip(b"=")))
        return payload if header["alg"] == "ES384" else None

    verify_also(accepts)


@fault("signature.parts")
def ignores_what_follows_the_third_part():
    verify_also(lambda token, find: jws.verify_jws(b".".join(token.split(b".")[:3]), find)[0])


@fault("signature.critical")
def ignores_crit():
    compact._FORBIDDEN -= {"crit", "b64"}


@fault("signature.header-unknown", "tokens.header-unknown")
def refuses_header_members_that_it_does_not_know():
    compact._FORBIDDEN |= {"x5t", "ver"}


@fault("tokens.header-refused")
def takes_what_points_to_a_key():
    compact._FORBIDDEN = frozenset()


@fault("tokens.epk-members")
def takes_no_ephemeral_key_with_more_members():
    whole = jwe._ephemeral_key
    jwe._ephemeral_key = lambda epk: whole(epk) if set(epk) == {"kty", "crv", "x", "y"} else None


@fault("http.byte-order-mark")
def takes_no_body_behind_a_byte_order_mark():
    body.codecs = SimpleNamespace(BOM_UTF8=b"")


@fault("signature.one-answer")
def tells_why_a_signature_was_refused():
    SignatureRefused.__init__ = lambda self, cause="", message="": problems.Problem.__init__(self, cause, cause)


@fault("signature.key-ids-missing", "signature.key-ids-malformed", "signature.key-ids-unknown")
def ignores_the_key_id_headers():
    def named(_headers, _header, role, _tenant, keyring):
        return next(key for key in keyring if key.role == role)

    signature._named_key = named


@fault("signature.before-body")
def looks_at_the_body_before_the_signature():
    def before(environ):
        if environ["REQUEST_METHOD"] != "GET" and environ.get("CONTENT_TYPE") != "application/json":
            return "415 No", b"{}"
        return None

    middleware(before)
