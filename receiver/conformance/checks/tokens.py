"""Stage 2: the form of a state's token. Cases, table B.

Checks of level must accept any refusal, because the Java service answers 500. Checks of level should expect a 400 that
names the item.
"""

import json
import random
import zlib
from collections.abc import Callable, Mapping

from jwcrypto import jwe as jose_jwe

from receiver.conformance.answers import described
from receiver.conformance.registry import check
from receiver.conformance.trial import LATER, Trial
from receiver.mock_platform import forging, tokens
from receiver.mock_platform.json_values import JSON, JSONObject

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def inner_of(trial: Trial, state: JSONObject) -> str:
    """Return the signed but not yet encrypted state."""
    return tokens.sign(tokens.state_claims(state), trial.keys.platform)


def refused(trial: Trial, variants: Mapping[str, JSON], *allowed: int, state: JSONObject | None = None) -> None:
    """Fail unless a POST of each token of ``variants`` is refused and stores nothing.

    ``allowed`` are the accepted statuses; without it, any refusal will do. All tokens are for ``state``, if given.
    """
    kept = trial.stored()
    for name, token in variants.items():
        answer = trial.post(token)
        trial.expect_refused(answer, name)
        if allowed:
            trial.expect(answer, *allowed, what=name)
        if state:
            trial.expect_absent(state["id"], f"{name} was refused")
    trial.expect_content(kept["id"], kept["content"], "another state, unchanged")


def _refused_inner(trial: Trial, make: Callable[[JSONObject], dict[str, str]], *allowed: int) -> None:
    state = trial.state()
    refused(
        trial,
        {name: tokens.seal(text, trial.keys.receiver) for name, text in make(state).items()},
        *allowed,
        state=state,
    )


@check("tokens.not-encrypted", "should", "The receiver refuses a state that is not encrypted.", "B01")
def not_encrypted(trial: Trial) -> None:
    state = trial.state()
    refused(trial, {"the bare inner JWS": inner_of(trial, state)}, state=state)


@check(
    "tokens.not-signed",
    "must",
    "The receiver refuses unsigned claims, because anyone can encrypt to a public key.",
    "B02",
)
def not_signed(trial: Trial) -> None:
    _refused_inner(trial, lambda state: {"raw claims": json.dumps(tokens.state_claims(state))})


@check("tokens.nested", "should", "The receiver refuses tokens that are nested in another order.", "B03")
def nested(trial: Trial) -> None:
    def make(state: JSONObject) -> dict[str, str]:
        inner = inner_of(trial, state)
        header = {"alg": "ES384", "kid": trial.keys.platform.kid, "cty": "JWT"}
        return {
            "JWE(JWE(JWS))": tokens.seal(inner, trial.keys.receiver),
            "JWE(JWS(JWS))": forging.jws(header, inner.encode(), trial.keys.platform.jwk),
        }

    _refused_inner(trial, make)


@check("tokens.request-signature", "must", "The receiver refuses an encrypted request signature as a state.", "B03")
def request_signature(trial: Trial) -> None:
    refused(trial, {"a request signature": tokens.seal(trial.signature(trial.path()), trial.keys.receiver)})


@check(
    "tokens.all-pairs",
    "must",
    "The receiver reads both key-wrapping and both content algorithms of the contract.",
    "B06",
)
def all_pairs(trial: Trial) -> None:
    for alg in ("ECDH-ES+A192KW", "ECDH-ES+A256KW"):
        for enc in ("A192CBC-HS384", "A256CBC-HS512"):
            state = trial.state()
            trial.expect(trial.client.save(state, alg=alg, enc=enc), 204, what=f"{alg} with {enc}")
            trial.expect_content(state["id"], state["content"])


@check("tokens.uncompressed", "must", "The receiver reads tokens without zip.", "B06")
def uncompressed(trial: Trial) -> None:
    state = trial.state()
    trial.expect(trial.client.save(state, compressed=False), 204, what="without zip")
    trial.expect_content(state["id"], state["content"])


@check(
    "tokens.party-info",
    "should",
    "The receiver reads tokens with apu and apv, which are part of the key agreement.",
    "B06, RFC 7518 4.6.1.2",
)
def party_info(trial: Trial) -> None:
    state = trial.state()
    answer = trial.client.save(state, apu=forging.b64(b"platform"), apv=forging.b64(b"receiver"))
    trial.expect(answer, 204, what="with apu and apv")
    trial.expect_content(state["id"], state["content"])


@check("tokens.cty-case", "should", "cty is a media type and case-insensitive: jwt means JWT.", "B06, RFC 7519 5.2")
def cty_case(trial: Trial) -> None:
    state = trial.state()
    trial.expect(trial.client.save(state, cty="jwt"), 204, what="cty jwt")
    trial.expect_content(state["id"], state["content"])


@check(
    "tokens.cty-other", "should", "The receiver refuses a JWE whose header does not say that it contains a JWT.", "B07"
)
def cty_other(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    inner = inner_of(trial, state).encode()
    made = {
        "cty text": tokens.seal(inner.decode(), receiver, cty="text"),
        "no cty": forging.jwe(inner, receiver.jwk, kid=receiver.kid, cty=...),
    }
    refused(trial, made, state=state)


@check("tokens.json-form", "should", "Only the compact form is a token; the JSON serializations are refused.", "B14")
def json_form(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    header = {"alg": "ECDH-ES+A192KW", "enc": "A192CBC-HS384", "kid": receiver.kid, "cty": "JWT"}
    made = jose_jwe.JWE(inner_of(trial, state).encode(), protected=json.dumps(header), recipient=receiver.jwk)
    flat = json.loads(made.serialize())
    one = {"header": flat.pop("header"), "encrypted_key": flat.pop("encrypted_key")}
    variants = {
        "flattened": json.dumps(flat | one),
        "general": json.dumps(flat | {"recipients": [one]}),
        "1000 recipients": json.dumps(flat | {"recipients": [one] * 1000}),
    }
    refused(trial, variants, state=state)


def _damaged(trial: Trial, state: JSONObject, each: int = 2) -> dict[str, str]:
    chance = random.Random(15)  # noqa: S311 - places to damage
    parts = trial.token(state).split(".")
    made = {}
    for number, name in enumerate(("header", "wrapped key", "iv", "ciphertext", "tag")):
        part = parts[number]
        others = [("emptied", ""), ("longer", part + "AAAA"), ("cut", part[:-4])]
        for place in (chance.randrange(len(part) - 1) for _ in range(each)):
            other = _ALPHABET[(_ALPHABET.index(part[place]) + chance.randrange(1, 64)) % 64]
            others.append((f"changed at {place}", part[:place] + other + part[place + 1 :]))
        for what, changed in others:
            made[f"{name} {what}"] = ".".join([*parts[:number], changed, *parts[number + 1 :]])
    made["a tag of 16 bytes"] = ".".join([*parts[:4], forging.b64(forging.unb64(parts[4])[:16])])
    return made | {"4 parts": ".".join(parts[:4]), "6 parts": ".".join([*parts, parts[4]]), "dots": "." * 10_000}


@check(
    "tokens.damaged",
    "must",
    "The receiver refuses a token with any part changed, cut, emptied or extended, and does not store it.",
    "B15",
)
def damaged(trial: Trial) -> None:
    state = trial.state()
    kept = trial.stored()
    for name, token in _damaged(trial, state).items():
        trial.expect_refused(trial.post(token), name)
    trial.expect_absent(state["id"], "all its tokens were damaged")
    trial.expect_content(kept["id"], kept["content"])


@check(
    "tokens.uniform",
    "should",
    "Every kind of damage gets the same 400, which does not reveal the cryptographic step that failed.",
    "B15; protocol, section 8.3",
)
def uniform(trial: Trial) -> None:
    bodies: dict[bytes, str] = {}
    for name, token in _damaged(trial, trial.state(), each=1).items():
        answer = trial.expect(trial.post(token), 400, what=name)
        bodies.setdefault(answer.body, name)
    if len(bodies) > 1:
        trial.fail("the same body for each damage", f"different ones came, as for: {', '.join(bodies.values())}")


@check(
    "tokens.deflate-damaged",
    "should",
    "The receiver refuses compressed data that ends early, continues too long, or is not compressed at all.",
    "B15",
)
def deflate_damaged(trial: Trial) -> None:
    state, receiver = trial.state(), trial.keys.receiver
    deflater = zlib.compressobj(wbits=-15)
    inner = inner_of(trial, state).encode()
    unfinished = deflater.compress(inner) + deflater.flush(zlib.Z_SYNC_FLUSH)
    whole = unfinished + deflater.flush()
    plains = {
        "cut": whole[:-9],
        "with a tail": whole + b"tail",
        "empty": b"",
        "no deflate": b"\xff" * 40,
        "with a zlib header": zlib.compress(inner),
    }
    made = {name: forging.jwe(b"", receiver.jwk, kid=receiver.kid, plain=plain) for name, plain in plains.items()}
    refused(trial, made, 400, state=state)


@check("tokens.bomb", "should", "The receiver refuses 130 kB that inflate to 98 MB before they fill its memory.", "B12")
def bomb(trial: Trial) -> None:
    state = trial.stored()
    sealed = tokens.seal("A" * 98_700_000, trial.keys.receiver)
    trial.expect(trial.post(sealed), 400, 413, what="a token that inflates to 98 MB")
    path, body = trial.path(), json.dumps([{"token": sealed}]).encode()
    answer = trial.client.call("POST", path, body, trial.headers(path, signature="x"))
    trial.expect(answer, 401, what="the same without a signature")
    trial.expect_content(state["id"], state["content"], "the receiver keeps running")


@check(
    "tokens.bomb-state",
    "should",
    "A signed state of 98 MB is either refused or stored whole, and never breaks the receiver.",
    "B12; protocol, section 10.4",
)
def bomb_state(trial: Trial) -> None:
    state = trial.state(content="A" * 98_700_000)
    answer = trial.client.save(state)
    trial.expect(answer, 204, 400, 413, what="a state of 98 MB")
    if answer.status == 204:
        trial.expect_content(state["id"], state["content"])
    else:
        trial.expect_absent(state["id"], "it was refused")


@check(
    "tokens.unknown-members",
    "must",
    "The receiver ignores unknown members beside token and unknown claims: the platform may add some.",
    "protocol, section 2.3",
)
def unknown_members(trial: Trial) -> None:
    state = trial.state()
    answer = trial.post({"token": trial.token(state, newClaim={"a": [1]}), "newMember": 1})
    trial.expect(answer, 204, what="an unknown member and an unknown claim")
    trial.expect_content(state["id"], state["content"])


@check(
    "tokens.item-shape",
    "should",
    "An item without a token is answered 400 and named, and no other item is stored.",
    "B15",
)
def item_shape(trial: Trial) -> None:
    state = trial.state()
    good = {"token": trial.token(state)}
    no_tokens: tuple[JSON, ...] = (None, 1, [], "", {})
    items: tuple[JSON, ...] = (*({"token": value} for value in no_tokens), {}, None, ["x"], 1)
    for item in items:
        trial.expect(trial.client.post([good, item]), 400, what=json.dumps(item))
    trial.expect_absent(state["id"], "each of its requests was refused")


@check(
    "tokens.names-item",
    "should",
    "A refused token is the caller's mistake: the receiver answers 400 and names the item's index, in JSON.",
    "protocol, section 8.2",
)
def names_item(trial: Trial) -> None:
    good, bad = trial.state(), trial.state()
    for index in (0, 2):
        items = [trial.token(good), trial.token(good), trial.token(good)]
        for broken in (trial.token(bad, iss="somebody"), trial.token(bad)[:-4], trial.token(bad, flow="x")):
            items[index] = broken
            answer = trial.expect(trial.post(*items), 400, what="a bad item among good ones")
            if str(index) not in str(answer.json.get("message")):
                trial.fail(f"a message that names item {index}", described(answer))
    trial.expect_absent(good["id"], "another item of its request was refused")
    trial.stored(good | {"updatedAt": LATER})
