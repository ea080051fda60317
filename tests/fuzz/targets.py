"""What is fuzzed: functions of bytes, each of which asserts the contract of what it calls. No atheris is needed.

Only the declared refusals may come out; what is accepted keeps what it promises, mostly by the word of another
implementation. The first byte of some inputs chooses what the rest is.
"""

import base64
import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from gunicorn.http import errors
from gunicorn.http.parser import RequestParser
from jwcrypto import jwe, jws
from jwcrypto.jwk import JWK
from marshmallow import ValidationError

from receiver import body, envelope, schemas, signature, strictjson
from receiver.keys import keyring
from receiver.keys.keyring import Keyring, parse_key
from receiver.problems import BadRequest, Problem, SignatureRefused, TooLarge, message_of
from receiver.server import application
from receiver.server.errors import status_of
from receiver.settings import Settings
from receiver.states import Instant, State
from receiver.stores.urls import store_url
from tests.fuzz import forge

NOW = 1_800_000_000
TENANT = "5eed0000-0000-4000-8000-000000000001"
PATH = f"/api/storage/1/states/{TENANT}"
MOST = 1000
INFLATED = Settings().max_inflated
_RING = Keyring(
    [
        parse_key(json.dumps(forge.PLATFORM.public), "platform", "fuzz"),
        parse_key(json.dumps(forge.RECEIVER.jwk), "receiver", "fuzz"),
    ]
)
_OTHER = {"platform": JWK(**forge.PLATFORM.public), "receiver": JWK(**forge.RECEIVER.jwk)}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PUBLIC_TEXT = re.compile(r"item 0: [ -~]{1,120}")


def _parts(data: bytes) -> tuple[bytes, bytes]:
    head, _, rest = data.partition(b"\n")
    return head, rest


def fuzz_signature(data: bytes) -> None:
    """Room 1. Input: ``r``, a header's text; or ``s``, the token's header, a line feed, the claims, to be signed."""
    kind, rest = data[:1], data[1:]
    token = forge.signed(*_parts(rest)).decode() if kind == b"s" else rest.decode("latin-1")
    headers = {
        signature.SIGNATURE: token,
        signature.PLATFORM_KEY_ID: forge.PLATFORM.kid,
        signature.RECEIVER_KEY_ID: forge.RECEIVER.kid,
    }
    try:
        caller = signature.check(headers, PATH, TENANT, _RING, NOW, 30)
    except SignatureRefused as refusal:
        assert refusal.message == message_of(401)
        return
    claims = json.loads(_verified(token))
    assert claims["path"] == PATH and claims["iss"] == "manywho" and TENANT in claims["aud"]
    assert NOW - 30 < claims["exp"] <= NOW + 330 and (claims.get("nbf") or 0) <= NOW + 30
    assert caller.jti == claims.get("jti") and caller.expires == claims["exp"]


def _verified(token: str) -> bytes:
    """Return the payload of ``token`` by the word of another library."""
    other = jws.JWS()
    other.allowed_algs = ["ES384"]
    other.deserialize(token, _OTHER["platform"])
    return other.payload


def fuzz_token(data: bytes) -> None:
    """Room 2, the token. Input: ``r``, its text; or what is made one: ``e``, header, line feed, what is encrypted;
    ``s``, header of the signature, line feed, claims.
    """
    kind, rest = data[:1], data[1:]
    if kind == b"e":
        token = forge.sealed(*_parts(rest)).decode()
    elif kind == b"s":
        token = forge.state_token(forge.signed(*_parts(rest)))
    else:
        token = rest.decode("latin-1")
    if (state := _opened(token)) is not None:
        outer = jwe.JWE(algs=["ECDH-ES+A192KW", "ECDH-ES+A256KW", "A192CBC-HS384", "A256CBC-HS512"])
        outer.deserialize(token)
        outer.decrypt(_OTHER["receiver"], max_plaintext=INFLATED)
        _check_state(state, json.loads(_verified(outer.plaintext.decode())))


def fuzz_claims(data: bytes) -> None:
    """Room 2, the claims. Input: their JSON, to be signed and sealed."""
    if (state := _opened(forge.state_token(forge.signed(forge.JWS_HEADER, data)))) is not None:
        _check_state(state, json.loads(data))


def _opened(token: str) -> State | None:
    try:
        (state,) = envelope.open_states([token], TENANT, _RING, NOW, 30, INFLATED)
    except BadRequest as refusal:
        assert _PUBLIC_TEXT.fullmatch(refusal.message), refusal.message
        return None
    except TooLarge:
        return None
    return state


def _check_state(state: State, claims: dict) -> None:
    assert state.content.text == claims["content"] and "\0" not in state.content.text
    state.content.text.encode()
    assert (state.tenant, state.id) == (TENANT, claims["id"].lower()) and claims["sub"].lower() == state.id
    assert state.is_done is claims["isDone"]
    assert all(_UUID.fullmatch(id) for id in (state.id, state.flow, state.flow_version))
    assert all(
        id is None or _UUID.fullmatch(id) for id in (state.parent, state.current_map_element, state.current_user)
    )
    assert state.updated_at.text == claims["updatedAt"] and Instant.parse(state.updated_at.text) == state.updated_at
    assert math.isfinite(claims["exp"]) and NOW - 30 < claims["exp"] <= NOW + 18_030


def fuzz_body(data: bytes) -> None:
    """A body, as that of a POST and as that of a DELETE."""
    try:
        items = body.parse(data, MOST)
    except (BadRequest, TooLarge):
        return
    assert len(items) <= MOST
    for schema in (schemas.tokens_of, schemas.ids_of):
        try:
            found = schema(items)
        except ValidationError as error:
            assert re.fullmatch(r"item \d+(: token)?: [ -~]{1,80}", schemas.fault_of(error))
            continue
        assert len(found) == len(items)
        if schema is schemas.ids_of:
            assert all(_UUID.fullmatch(id) for id in found)
        else:
            assert all(token and "\0" not in token and token.encode() for token in found)


def fuzz_json(data: bytes) -> None:
    """Strict JSON: both of its parsers, and the standard library's, agree on what a text means."""
    ours = _outcome(data)
    assert ours == _outcome(data + b" ")
    odd = []
    try:
        theirs = repr(
            json.loads(
                data.decode(),
                object_pairs_hook=lambda pairs: (
                    odd.append(len(pairs) != len({name for name, _ in pairs})) or dict(pairs)
                ),
                parse_constant=lambda name: odd.append(True),
            )
        )
    except (ValueError, RecursionError):
        theirs = None
    assert ours == (None if any(odd) else theirs)


def _outcome(data: bytes) -> str | None:
    try:
        return repr(strictjson.loads(data))  # 1 and 1.0 are equal, their texts are not
    except strictjson.NotJson:
        return None


def fuzz_time(data: bytes) -> None:
    """Times: what is one is the same to the standard library, as far as that can read it."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        instant = Instant.parse(text)
    except ValueError:
        return
    whole, _, rest = text.partition(".")
    digits = re.match(r"\d*", rest).group()
    known = datetime.fromisoformat(whole + rest[len(digits) :])
    try:
        known = known.astimezone(UTC)
    except OverflowError:  # before the year 1 or after 9999 in UTC
        return
    seconds = (known - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    assert instant.text == text and instant.nanoseconds == seconds * 10**9 + int(digits.ljust(9, "0"))


def fuzz_key(data: bytes) -> None:
    """A key file's text, for either role."""
    text = data.decode("utf-8", "surrogateescape")
    for role in keyring.ROLES:
        try:
            key = parse_key(text, role, "fuzz")
        except keyring.KeyFault as fault:
            assert re.fullmatch(r"[ -~]{1,160}", str(fault))
            continue
        members = json.loads(text.strip().removeprefix("\ufeff"))
        members = members["keys"][0] if "keys" in members else members
        numbers = {name: _number(members[name]) for name in ("x", "y")}
        assert key.thumbprint == JWK(kty="EC", crv="P-384", **numbers).thumbprint()
        assert hasattr(key.handle, "private_numbers") == (role == "receiver") and _UUID.fullmatch(key.kid.lower())
        assert members.get("d", "?") not in repr(key)


def _number(text: str) -> str:
    """Return base64url ``text`` with as many zeros in front as a number of P-384 has."""
    number = int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return forge.base64url(number.to_bytes(48)).decode()


def fuzz_url(data: bytes) -> None:
    """The URL of a store, also a ``jdbc:`` one."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        place = store_url.parse(text)
    except ValueError:
        return
    store_url.masked(text)
    assert place.kind in store_url.TITLES and str(place)
    assert all(name and 0 < port < 65536 for name, port in place.hosts)
    assert not re.search(r"[\x00-\x1f\x7f]", str(place))


_HTTP = application.Server(Settings(), _RING, lambda _addresses: None).cfg


def fuzz_head(data: bytes) -> None:
    """What arrives on a connection, read as gunicorn does with our settings, bodies as ``body.read`` does."""
    requests = RequestParser(_HTTP, iter([data]), ("127.0.0.1", 1))
    try:
        for request in requests:
            _check_request(request)
    except errors.NoMoreData:
        pass
    except errors.ParseException as refusal:
        assert status_of(refusal) in (400, 401, 414, 417, 431, 501)


def _check_request(request: SimpleNamespace) -> None:
    names = [name for name, _ in request.headers]
    assert len(names) <= 100 and not any("_" in name for name in names)
    headers = {name.upper(): value for name, value in request.headers}
    assert not {"CONTENT-LENGTH", "TRANSFER-ENCODING"} <= set(headers)
    environ = {"wsgi.input": request.body, "CONTENT_TYPE": headers.get("CONTENT-TYPE", "application/json")}
    if "CONTENT-LENGTH" in headers:
        environ["CONTENT_LENGTH"] = headers["CONTENT-LENGTH"]
    if "TRANSFER-ENCODING" in headers:
        environ["HTTP_TRANSFER_ENCODING"] = headers["TRANSFER-ENCODING"]
    try:
        assert len(body.read(environ, 1 << 16)) <= 1 << 16
    except Problem as refusal:
        assert refusal.status in (400, 413, 415, 501)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "token": fuzz_token,
    "claims": fuzz_claims,
    "signature": fuzz_signature,
    "body": fuzz_body,
    "json": fuzz_json,
    "head": fuzz_head,
    "key": fuzz_key,
    "url": fuzz_url,
    "time": fuzz_time,
}
