"""Stage 2: who signed a state's token and for whom, its headers, and the key agreement. Cases, table B."""

import json
import random
import uuid
from collections.abc import Mapping

from jwcrypto import jwe as jose_jwe
from jwcrypto.jwk import JWK

from receiver.conformance.checks.tokens import inner_of, refused
from receiver.conformance.registry import check
from receiver.conformance.trial import Trial
from receiver.mock_platform import forging, tokens
from receiver.mock_platform.json_values import JSON, JSONObject
from receiver.mock_platform.keys import KeyPair

_PRIME = 2**384 - 2**128 - 2**96 + 2**32 - 1


def _sealed(trial: Trial, state: JSONObject, header: JSONObject, jwk: JWK | None, alg: str = "ES384") -> str:
    inner = forging.jws(header, tokens.state_claims(state), jwk, alg)
    return tokens.seal(inner, trial.keys.receiver)


@check(
    "tokens.unknown-signer", "must", "The receiver refuses a state that another key than the platform's signed.", "B04"
)
def unknown_signer(trial: Trial) -> None:
    state, stranger = trial.state(), KeyPair.generate()
    made = {
        f"another key under kid {kid}": _sealed(trial, state, {"alg": "ES384", "kid": kid}, stranger.jwk)
        for kid in (trial.keys.platform.kid, stranger.kid, trial.keys.receiver.kid)
    }
    refused(trial, made, state=state)


@check("tokens.inner-alg-none", "must", "The receiver refuses an unsigned state inside the encryption.", "B04")
def inner_alg_none(trial: Trial) -> None:
    state = trial.state()
    header = {"kid": trial.keys.platform.kid}
    made = {alg: _sealed(trial, state, header | {"alg": alg}, None) for alg in ("none", "None")}
    refused(trial, made, state=state)


@check(
    "tokens.inner-hmac",
    "must",
    "The receiver refuses a state signed by an HMAC that is keyed with the public key.",
    "B04",
)
def inner_hmac(trial: Trial) -> None:
    state, platform = trial.state(), trial.keys.platform
    secret = JWK(kty="oct", k=forging.b64(json.dumps(platform.public()).encode()))
    made = {alg: _sealed(trial, state, {"alg": alg, "kid": platform.kid}, secret, alg) for alg in ("HS256", "HS384")}
    refused(trial, made, state=state)


@check(
    "tokens.inner-other-algorithm",
    "must",
    "The receiver refuses a state signed with another algorithm or key size.",
    "B04",
)
def inner_other_algorithm(trial: Trial) -> None:
    state, kid = trial.state(), trial.keys.platform.kid
    made = {
        alg: _sealed(trial, state, {"alg": alg, "kid": kid}, JWK.generate(kty="EC", crv=curve), alg)
        for alg, curve in (("ES256", "P-256"), ("ES512", "P-521"))
    }
    refused(trial, made, state=state)


@check(
    "tokens.inner-embedded-key",
    "must",
    "The receiver never verifies a state with a key that the state itself carries.",
    "B04, A03",
)
def inner_embedded_key(trial: Trial) -> None:
    state, stranger = trial.state(), KeyPair.generate()
    header = {"alg": "ES384", "kid": trial.keys.platform.kid, "jwk": stranger.public()}
    refused(trial, {"jwk in the header": _sealed(trial, state, header, stranger.jwk)}, state=state)


@check(
    "tokens.inner-kid",
    "should",
    "The receiver refuses an inner signature that names no key or an unknown one.",
    "protocol, section 5.2",
)
def inner_kid(trial: Trial) -> None:
    state, jwk = trial.state(), trial.keys.platform.jwk
    made = {
        "no kid": _sealed(trial, state, {"alg": "ES384"}, jwk),
        "an unknown kid": _sealed(trial, state, {"alg": "ES384", "kid": str(uuid.uuid4())}, jwk),
    }
    refused(trial, made, state=state)


@check(
    "tokens.header-unknown",
    "must",
    "The receiver ignores header members that it does not know: the platform may add some.",
    "B21, RFC 7516 4",
)
def header_unknown(trial: Trial) -> None:
    state, keys = trial.state(), trial.keys
    extra: JSONObject = {"x5t": "dGhlIFNIQS0x", "ver": "2", "iat": 1, "x": {"a": [1]}}
    header = {"alg": "ES384", "kid": keys.platform.kid} | extra
    inner = forging.jws(header, tokens.state_claims(state), keys.platform.jwk)
    trial.expect(trial.post(tokens.seal(inner, keys.receiver)), 204, what="unknown members in the JWS header")
    trial.expect(
        trial.post(tokens.seal(inner_of(trial, state), keys.receiver, **extra)),
        204,
        what="unknown members in the JWE header",
    )
    trial.expect_content(state["id"], state["content"])


@check(
    "tokens.header-refused",
    "should",
    "The receiver refuses a header with crit, with another zip, or with a member that carries or points to a key.",
    "B21",
)
def header_refused(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    inner = inner_of(trial, state).encode()
    url = "http://127.0.0.1:9/"
    members: tuple[JSONObject, ...] = (
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False},
        {"jku": url},
        {"x5u": url},
        {"x5c": []},
        {"zip": "GZ"},
    )
    made = {json.dumps(extra): forging.jwe(inner, receiver.jwk, kid=receiver.kid, **extra) for extra in members}
    refused(trial, made, state=state)


@check("tokens.foreign-recipient", "must", "The receiver refuses a state that is encrypted to another key.", "B15")
def foreign_recipient(trial: Trial) -> None:
    state, other = trial.state(), KeyPair.generate()
    inner = inner_of(trial, state)
    made = {
        "under its own kid": tokens.seal(inner, other),
        "under the receiver's kid": tokens.seal(inner, KeyPair(trial.keys.receiver.kid, other.jwk)),
    }
    refused(trial, made, state=state)


@check("tokens.kid-missing", "must", "The receiver refuses a token that names no receiver key.", "B19")
def kid_missing(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    made = {
        "no kid": forging.jwe(inner_of(trial, state).encode(), receiver.jwk, kid=...),
        "an unknown kid": forging.jwe(inner_of(trial, state).encode(), receiver.jwk, kid=str(uuid.uuid4())),
    }
    refused(trial, made, state=state)


def _encrypted(plain: bytes, key: JWK, **header: JSON) -> str:
    token = jose_jwe.JWE(plain, protected=json.dumps(header), algs=[header["alg"], header["enc"]])
    token.add_recipient(key)
    text: str = token.serialize(compact=True)
    return text


@check(
    "tokens.other-key-management",
    "should",
    "The receiver accepts key agreement by ECDH-ES with A192KW or A256KW only.",
    "B05",
)
def other_key_management(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    keys = {
        "ECDH-ES": receiver.jwk,
        "ECDH-ES+A128KW": receiver.jwk,
        "RSA-OAEP-256": JWK.generate(kty="RSA", size=2048),
        "A256KW": JWK.generate(kty="oct", size=256),
        "dir": JWK.generate(kty="oct", size=384),
    }
    common = {"enc": "A192CBC-HS384", "kid": receiver.kid, "cty": "JWT", "zip": "DEF"}
    inner = inner_of(trial, state).encode()
    refused(trial, {alg: _encrypted(inner, key, alg=alg, **common) for alg, key in keys.items()}, state=state)


@check(
    "tokens.other-encryption",
    "should",
    "The receiver accepts content encryption by A192CBC-HS384 and A256CBC-HS512 only.",
    "B05",
)
def other_encryption(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    inner = inner_of(trial, state).encode()
    common = {"alg": "ECDH-ES+A192KW", "kid": receiver.kid, "cty": "JWT", "zip": "DEF"}
    names = ("A128CBC-HS256", "A128GCM", "A192GCM", "A256GCM")
    refused(trial, {enc: _encrypted(inner, receiver.jwk, enc=enc, **common) for enc in names}, state=state)


def _with_epk(trial: Trial, points: Mapping[str, JSON]) -> None:
    sealed = trial.token(trial.state())
    refused(trial, {name: forging.with_header(sealed, epk=epk) for name, epk in points.items()})


@check(
    "tokens.epk-off-curve",
    "must",
    "The receiver refuses a point that is not on the curve, because it could reveal the private key.",
    "B08, RFC 8725 3.4",
)
def epk_off_curve(trial: Trial) -> None:
    good, chance = KeyPair.generate().public(), random.Random(8)  # noqa: S311
    good = {name: good[name] for name in ("kty", "crv", "x", "y")}
    zero, prime = (forging.b64(number.to_bytes(48)) for number in (0, _PRIME))
    points = {f"point {n}": good | {"y": forging.b64(chance.randrange(_PRIME).to_bytes(48))} for n in range(6)}
    points |= {
        "zero": good | {"x": zero, "y": zero},
        "x not reduced": good | {"x": prime},
        "an empty x": good | {"x": ""},
    }
    _with_epk(trial, points)


@check("tokens.epk-other", "should", "The receiver refuses an ephemeral key of another curve or type.", "B08")
def epk_other(trial: Trial) -> None:
    kinds = (("EC", "P-256"), ("EC", "P-521"), ("EC", "secp256k1"), ("OKP", "X448"))
    points: dict[str, JSON] = {
        curve: json.loads(JWK.generate(kty=kind, crv=curve).export_public()) for kind, curve in kinds
    }
    no_keys: tuple[JSON, ...] = ("x", [], 1, True, {})
    _with_epk(trial, points | {repr(value): value for value in no_keys})


@check(
    "tokens.epk-members",
    "should",
    "The receiver ignores extra members of an ephemeral key but refuses one with a private half.",
    "B10, RFC 7518 4.6.1.1",
)
def epk_members(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    inner = inner_of(trial, state).encode()
    private = KeyPair.generate().private()["d"]
    refused(trial, {"d": forging.jwe(inner, receiver.jwk, kid=receiver.kid, epk={"d": private})}, state=state)
    token = forging.jwe(inner, receiver.jwk, kid=receiver.kid, epk={"use": "enc", "kid": "x", "key_ops": []})
    trial.expect(trial.post(token), 204, what="an epk with use, kid and key_ops")
    trial.expect_content(state["id"], state["content"])
