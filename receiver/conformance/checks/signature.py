"""Room 1: the form of the request signature and the key that made it. Table A of the cases."""

import base64
import json
import random
from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto.jwa import JWA
from jwcrypto.jwk import JWK

from receiver.conformance.checks.refusing import Make, makers, refused
from receiver.conformance.registry import check
from receiver.conformance.trial import Trial
from receiver.mock_platform import forging, tokens
from receiver.mock_platform.json_values import JSON, JSONObject
from receiver.mock_platform.keys import KeyPair

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@check("signature.missing", "must", "A call without a signature is answered 401 and has no effect.", "A01")
def missing(trial: Trial) -> None:
    refused(trial, {"no header": lambda _: None, "an empty header": lambda _: ""})


@check("signature.malformed", "must", "Text that is no token is answered 401, never 500.", "A01")
def malformed(trial: Trial) -> None:
    texts = (".", "..", "...", "a.b.c", "Bearer x", "{}", "=.=.=")
    refused(trial, makers({text: text for text in texts}, lambda text, _: text))


@check("signature.alg-none", "must", "An unsigned token must not open the store to everybody.", "A02, RFC 8725 3.1")
def alg_none(trial: Trial) -> None:
    kid = trial.keys.platform.kid
    headers = {alg: {"alg": alg, "kid": kid} for alg in ("none", "None", "NONE")}
    refused(trial, makers(headers, lambda header, path: forging.jws(header, trial.claims(path))))


@check(
    "signature.hmac-public-key",
    "must",
    "An HMAC keyed with the public key, which is no secret, proves nothing.",
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


@check("signature.other-algorithm", "must", "ES384 is the only algorithm, whatever else is truly signed.", "A02")
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


@check("signature.algorithm-label", "should", "A label other than ES384 is refused though the signature holds.", "A02")
def algorithm_label(trial: Trial) -> None:
    kid = trial.keys.platform.kid
    algs: tuple[JSON, ...] = ("es384", "ES256", "HS384", "", None, [], ["ES384"], 1)
    headers = [{"alg": alg, "kid": kid} for alg in algs]
    _refused_headers(trial, *headers, {"kid": kid})


def _refused_headers(trial: Trial, *headers: JSONObject) -> None:
    named = {json.dumps(header): header for header in headers}
    make = makers(named, lambda header, path: trial.signature(path, header=header))
    refused(trial, make, methods=("GET", "DELETE"))


@check("signature.unknown-key", "must", "A P-384 key that the receiver was not given signs nothing.", "A04, A11")
def unknown_key(trial: Trial) -> None:
    stranger = KeyPair.generate()
    refused(trial, {"another key under its own kid": lambda path: trial.signature(path, key=stranger)})


@check("signature.forged-kid", "must", "The kid of the platform's key does not make another key the platform's.", "A11")
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
    "A key that comes with the token is never used to verify it.",
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


@check("signature.kid-missing", "must", "A signature that names no key is refused.", "protocol, section 3.2")
def kid_missing(trial: Trial) -> None:
    _refused_headers(trial, {"alg": "ES384"})


@check("signature.kid-odd", "should", "A kid that is no text, or unknown, is answered 401, never 500.", "A04")
def kid_odd(trial: Trial) -> None:
    kids: tuple[JSON, ...] = (None, 0, {}, [], "", "x" * 36, True)
    _refused_headers(trial, *({"alg": "ES384", "kid": kid} for kid in kids))


@check("signature.flipped", "must", "No damaged character of a signature header goes unnoticed, or makes a 500.", "A06")
def flipped(trial: Trial) -> None:
    chance = random.Random(6)  # noqa: S311 - places to damage
    places = {f"at {place:.3f}": place for place in (chance.random() for _ in range(40))}
    refused(trial, makers(places, lambda place, path: _flip(trial.signature(path), place)), methods=("DELETE",))


def _flip(text: str, place: float) -> str:
    number = int(place * len(text))
    other = _ALPHABET[(_ALPHABET.find(text[number]) + 1 + int(place * 7919) % 62) % 64]
    return text[:number] + other + text[number + 1 :]


def _parts(trial: Trial, build: Callable[[str, str, str], str]) -> Make:
    """Return what makes a signature whose three parts ``build`` puts together in its own way."""
    return lambda path: build(*trial.signature(path).split("."))


@check("signature.parts", "must", "Parts removed, added, emptied or cut are answered 401.", "A06")
def cut(trial: Trial) -> None:
    def parts(build: Callable[[str, str, str], str]) -> Make:
        return _parts(trial, build)

    refused(
        trial,
        {
            "two parts": parts(lambda h, p, s: f"{h}.{p}"),
            "no signature": parts(lambda h, p, s: f"{h}.{p}."),
            "no payload": parts(lambda h, p, s: f"{h}..{s}"),
            "no header": parts(lambda h, p, s: f".{p}.{s}"),
            "four parts": parts(lambda h, p, s: f"{h}.{p}.{s}.{s}"),
            "five parts": parts(lambda h, p, s: f"{h}.{p}.{s}.{s}.{s}"),
            "a short signature": parts(lambda h, p, s: f"{h}.{p}.{s[:-4]}"),
            "a long signature": parts(lambda h, p, s: f"{h}.{p}.{s}AAAA"),
            "a signature of zeros": parts(lambda h, p, s: f"{h}.{p}.{forging.b64(bytes(96))}"),
        },
        methods=("GET", "DELETE"),
    )


@check(
    "signature.segments",
    "should",
    "A part with base64 padding is answered 401.",
    "A06, RFC 7515 2",
)
def segments(trial: Trial) -> None:
    padded = _parts(trial, lambda h, p, s: f"{h}.{p}.{s}=")
    refused(trial, {"padding": padded}, methods=("GET", "DELETE"))


@check("signature.tampered", "must", "Claims that were changed after signing are refused.", "A06, RFC 7515 5.2")
def tampered(trial: Trial) -> None:
    def changed(path: str) -> str:
        head, _, signature = trial.signature(path).split(".")
        return f"{head}.{forging.b64(json.dumps(trial.claims(path)).encode())}.{signature}"

    refused(trial, {"another jti under the same signature": changed})


@check("signature.critical", "should", "An extension that the receiver must understand, and cannot, is refused.", "A09")
def critical(trial: Trial) -> None:
    base = {"alg": "ES384", "kid": trial.keys.platform.kid}
    extensions: tuple[JSONObject, ...] = (
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"crit": 1},
        {"b64": False, "crit": ["b64"]},
    )
    _refused_headers(trial, *(base | extension for extension in extensions))


@check(
    "signature.header-unknown",
    "must",
    "Header members that a receiver does not know are ignored: the platform may add some.",
    "B21, RFC 7515 4",
)
def header_unknown(trial: Trial) -> None:
    state, path = trial.state(), trial.path()
    header = {"alg": "ES384", "kid": trial.keys.platform.kid, "x5t": "dGhlIFNIQS0x", "ver": "2", "x": {"a": [1]}}
    signature = trial.signature(path, header=header)
    answer = trial.client.call("POST", path, trial.body(state), trial.headers(path, signature=signature))
    trial.expect(answer, 204, what="a signature with x5t, ver and x in its header")
    trial.expect_content(state["id"], state["content"])


@check("signature.json-form", "should", "Only the compact form is a signature, not its JSON serializations.", "A09")
def json_form(trial: Trial) -> None:
    def serialized(path: str, general: bool) -> str:
        head, payload, signature = trial.signature(path).split(".")
        one = {"protected": head, "signature": signature}
        if not general:
            return json.dumps({"payload": payload} | one)
        return json.dumps({"payload": payload, "signatures": [one, one | {"signature": forging.b64(bytes(96))}]})

    refused(
        trial,
        {"flattened": lambda path: serialized(path, False), "general": lambda path: serialized(path, True)},
    )


@check(
    "signature.state-token",
    "must",
    "A state's token, from the same signer for the same tenant, is no signature.",
    "A10",
)
def state_token(trial: Trial) -> None:
    claims = tokens.state_claims(trial.state())
    inner = tokens.sign(claims, trial.keys.platform)
    sealed = tokens.seal(inner, trial.keys.receiver)
    refused(trial, {"the signed state": lambda _: inner, "the encrypted state": lambda _: sealed})


@check(
    "signature.base64-spelling",
    "should",
    "One token has one spelling: base64 with + / = or spare bits is refused.",
    "A06",
)
def base64_spelling(trial: Trial) -> None:
    head = forging.b64(json.dumps({"alg": "ES384", "kid": trial.keys.platform.kid}).encode())

    def signed(text: str) -> str:
        key = trial.keys.platform.jwk
        return f"{head}.{text}.{forging.b64(JWA.signing_alg('ES384').sign(key, f'{head}.{text}'.encode()))}"

    def padded(path: str) -> str:
        payload = json.dumps(trial.claims(path)).encode()
        return signed(base64.urlsafe_b64encode(payload + b" " * (1 - len(payload) % 3)).decode())

    def spare_bits(path: str) -> str:
        text = padded(path).split(".")[1].rstrip("=")
        return signed(text[:-1] + _ALPHABET[_ALPHABET.index(text[-1]) | 1])

    refused(trial, {"padded": padded, "with spare bits": spare_bits}, methods=("GET", "DELETE"))


@check("signature.length", "should", "Numbers padded to another length are no ES384 signature.", "A06, RFC 7518 3.4")
def length(trial: Trial) -> None:
    def padded(pad: int, path: str) -> str:
        head, payload, signature = trial.signature(path).split(".")
        raw = forging.unb64(signature)
        return f"{head}.{payload}.{forging.b64(bytes(pad) + raw[:48] + bytes(pad) + raw[48:])}"

    refused(trial, makers({f"{pad} zeros": pad for pad in (1, 2, 16)}, padded), methods=("DELETE",))
