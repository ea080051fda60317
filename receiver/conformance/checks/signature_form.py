"""Stage 1: the form of the request signature: its parts, its spelling and what its header may hold. Cases, table A."""

import base64
import json
import random
from collections.abc import Callable

from jwcrypto.jwa import JWA

from receiver.conformance.checks.refusing import Make, makers, refused, refused_headers
from receiver.conformance.registry import check
from receiver.conformance.trial import Trial
from receiver.mock_platform import forging, tokens
from receiver.mock_platform.json_values import JSONObject

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@check("signature.flipped", "must", "A signature with any damaged character is answered 401, never 500.", "A06")
def flipped(trial: Trial) -> None:
    chance = random.Random(6)  # noqa: S311 - places to damage
    places = {f"at {place:.3f}": place for place in (chance.random() for _ in range(40))}
    refused(trial, makers(places, lambda place, path: _flip(trial.signature(path), place)), methods=("DELETE",))


def _flip(text: str, place: float) -> str:
    number = int(place * len(text))
    other = _ALPHABET[(_ALPHABET.find(text[number]) + 1 + int(place * 7919) % 62) % 64]
    return text[:number] + other + text[number + 1 :]


def _parts(trial: Trial, build: Callable[[str, str, str], str]) -> Make:
    """Return a maker of signatures whose three parts ``build`` assembles."""
    return lambda path: build(*trial.signature(path).split("."))


@check("signature.parts", "must", "A signature with a part removed, added, emptied or cut is answered 401.", "A06")
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


@check(
    "signature.tampered", "must", "The receiver refuses claims that were changed after signing.", "A06, RFC 7515 5.2"
)
def tampered(trial: Trial) -> None:
    def changed(path: str) -> str:
        head, _, signature = trial.signature(path).split(".")
        return f"{head}.{forging.b64(json.dumps(trial.claims(path)).encode())}.{signature}"

    refused(trial, {"another jti under the same signature": changed})


@check("signature.critical", "should", "The receiver refuses a critical extension that it does not support.", "A09")
def critical(trial: Trial) -> None:
    base = {"alg": "ES384", "kid": trial.keys.platform.kid}
    extensions: tuple[JSONObject, ...] = (
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"crit": 1},
        {"b64": False, "crit": ["b64"]},
    )
    refused_headers(trial, *(base | extension for extension in extensions))


@check(
    "signature.header-unknown",
    "must",
    "The receiver ignores header members that it does not know: the platform may add some.",
    "B21, RFC 7515 4",
)
def header_unknown(trial: Trial) -> None:
    state, path = trial.state(), trial.path()
    header = {"alg": "ES384", "kid": trial.keys.platform.kid, "x5t": "dGhlIFNIQS0x", "ver": "2", "x": {"a": [1]}}
    signature = trial.signature(path, header=header)
    answer = trial.client.call("POST", path, trial.body(state), trial.headers(path, signature=signature))
    trial.expect(answer, 204, what="a signature with x5t, ver and x in its header")
    trial.expect_content(state["id"], state["content"])


@check(
    "signature.json-form", "should", "Only the compact form is a signature; the JSON serializations are refused.", "A09"
)
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
    "A state's token is not a request signature, even from the same signer for the same tenant.",
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
    "A token has exactly one spelling: base64 with +, /, = or spare bits is refused.",
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


@check(
    "signature.length",
    "should",
    "A signature whose numbers are padded to another length is refused.",
    "A06, RFC 7518 3.4",
)
def length(trial: Trial) -> None:
    def padded(pad: int, path: str) -> str:
        head, payload, signature = trial.signature(path).split(".")
        raw = forging.unb64(signature)
        return f"{head}.{payload}.{forging.b64(bytes(pad) + raw[:48] + bytes(pad) + raw[48:])}"

    refused(trial, makers({f"{pad} zeros": pad for pad in (1, 2, 16)}, padded), methods=("DELETE",))
