"""Stage 1: the request signature's algorithm and the key that made it. Cases, table A."""

import json

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto.jwk import JWK

from receiver.conformance.checks.refusing import makers, refused, refused_headers
from receiver.conformance.registry import check
from receiver.conformance.trial import Trial
from receiver.mock_platform import forging
from receiver.mock_platform.json_values import JSON
from receiver.mock_platform.keys import KeyPair

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@check("signature.missing", "must", "A call without a signature is answered 401 and has no effect.", "A01")
def missing(trial: Trial) -> None:
    refused(trial, {"no header": lambda _: None, "an empty header": lambda _: ""})


@check("signature.malformed", "must", "Text that is not a token is answered 401, never 500.", "A01")
def malformed(trial: Trial) -> None:
    texts = (".", "..", "...", "a.b.c", "Bearer x", "{}", "=.=.=")
    refused(trial, makers({text: text for text in texts}, lambda text, _: text))


@check("signature.alg-none", "must", "An unsigned token never opens the store.", "A02, RFC 8725 3.1")
def alg_none(trial: Trial) -> None:
    kid = trial.keys.platform.kid
    headers = {alg: {"alg": alg, "kid": kid} for alg in ("none", "None", "NONE")}
    refused(trial, makers(headers, lambda header, path: forging.jws(header, trial.claims(path))))


@check(
    "signature.hmac-public-key",
    "must",
    "An HMAC keyed with the public key proves nothing, because that key is no secret.",
    "A02, RFC 8725 2.1",
)
def hmac_public_key(trial: Trial) -> None:
    platform = trial.keys.platform
    public = platform.public()
    pem = platform.jwk.get_op_key("verify").public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = {"JWK": json.dumps(public).encode(), "PEM": pem, "x": forging.unb64(public["x"])}
    pairs = {f"{alg} with the {name}": (alg, secrets[name]) for alg in ("HS256", "HS384") for name in secrets}

    def make(pair: tuple[str, bytes], path: str) -> str:
        alg, secret = pair
        key = JWK(kty="oct", k=forging.b64(secret))
        return forging.jws({"alg": alg, "kid": platform.kid}, trial.claims(path), key, alg)

    refused(trial, makers(pairs, make), methods=("GET", "DELETE"))


@check(
    "signature.other-algorithm",
    "must",
    "ES384 is the only accepted algorithm, even if another signature is genuine.",
    "A02",
)
def other_algorithm(trial: Trial) -> None:
    made = {
        "ES256": JWK.generate(kty="EC", crv="P-256"),
        "ES512": JWK.generate(kty="EC", crv="P-521"),
        "RS256": JWK.generate(kty="RSA", size=2048),
    }
    kid = trial.keys.platform.kid

    def make(made: tuple[str, JWK], path: str) -> str:
        alg, key = made
        return forging.jws({"alg": alg, "kid": kid}, trial.claims(path), key, alg)

    refused(trial, makers({alg: (alg, key) for alg, key in made.items()}, make))


@check(
    "signature.algorithm-label",
    "should",
    "The receiver refuses any label other than ES384, even if the signature is valid.",
    "A02",
)
def algorithm_label(trial: Trial) -> None:
    kid = trial.keys.platform.kid
    algs: tuple[JSON, ...] = ("es384", "ES256", "HS384", "", None, [], ["ES384"], 1)
    headers = [{"alg": alg, "kid": kid} for alg in algs]
    refused_headers(trial, *headers, {"kid": kid})


@check(
    "signature.unknown-key",
    "must",
    "The receiver refuses a signature by a P-384 key that it does not know.",
    "A04, A11",
)
def unknown_key(trial: Trial) -> None:
    stranger = KeyPair.generate()
    refused(trial, {"another key under its own kid": lambda path: trial.signature(path, key=stranger)})


@check(
    "signature.forged-kid",
    "must",
    "The receiver refuses a signature by another key that carries the platform key's kid.",
    "A11",
)
def forged_kid(trial: Trial) -> None:
    stranger = KeyPair(trial.keys.platform.kid, KeyPair.generate().jwk)
    as_receiver = KeyPair(trial.keys.receiver.kid, trial.keys.platform.jwk)
    refused(
        trial,
        {
            "another key under the platform's kid": lambda path: trial.signature(path, key=stranger),
            "the platform's key under the receiver's kid": lambda path: trial.signature(path, key=as_receiver),
        },
    )


@check(
    "signature.embedded-key",
    "must",
    "The receiver never verifies a token with a key that the token itself carries.",
    "A03, RFC 8725 3.10",
)
def embedded_key(trial: Trial) -> None:
    stranger = KeyPair.generate()
    url = "http://127.0.0.1:9/key"
    members = {"jwk": stranger.public(), "jku": url, "x5u": url, "x5c": ["MIIB"]}
    headers = {
        f"{name} with kid {kid}": {"alg": "ES384", "kid": kid, name: value}
        for name, value in members.items()
        for kid in (trial.keys.platform.kid, stranger.kid)
    }
    make = makers(headers, lambda header, path: trial.signature(path, key=stranger, header=header))
    refused(trial, make, methods=("GET", "DELETE"))


@check("signature.kid-missing", "must", "The receiver refuses a signature that names no key.", "protocol, section 3.2")
def kid_missing(trial: Trial) -> None:
    refused_headers(trial, {"alg": "ES384"})


@check("signature.kid-odd", "should", "A kid that is not text, or is unknown, is answered 401, never 500.", "A04")
def kid_odd(trial: Trial) -> None:
    kids: tuple[JSON, ...] = (None, 0, {}, [], "", "x" * 36, True)
    refused_headers(trial, *({"alg": "ES384", "kid": kid} for kid in kids))
