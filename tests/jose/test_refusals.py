"""Whatever goes wrong in the rooms of cryptography is the one refusal, to the byte: every call of a library fails in turn."""

import ast
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from receiver import envelope
from receiver.app import create_app
from receiver.jose import jws
from receiver.mock_platform import tokens
from receiver.mock_platform.forging import jws as signed
from receiver.mock_platform.forging import with_header
from receiver.settings import Settings
from receiver.signature import SIGNATURE

# Every call of a library that the source of these rooms holds, and the rooms where its failing has to end as a refusal.
CALLS = {
    "encoding.pybase64.b64decode": "signature, token",
    "encoding.pybase64.b64decode_as_bytearray": "signature, token",
    "jws.p384.verify": "signature, token",
    "jws.hashlib.sha384": "signature, token",
    "strictjson.json.loads": "signature, token",
    "jwe.AES": "token",
    "jwe.CBC": "token",
    "jwe.Cipher": "token",
    "jwe.ConcatKDFHash": "token",
    "jwe.SHA256": "token",
    "jwe.aes_key_unwrap": "token",
    "jwe.p384.agree": "token",
    "jwe.p384.public_key": "token",
    "jwe.hmac.compare_digest": "token",
    "jwe.hmac.new": "token",
    "jwe.isal_zlib.decompressobj": "token",
    "jwe.os.urandom": "token",
    "strictjson.orjson.loads": "nothing: another parser reads it then",
    "strictjson.orjson.dumps": "nothing: another parser reads it then",
    "envelope.uuid.uuid4": "nothing: seals replies",
    "encoding.pybase64.urlsafe_b64encode": "signature, token",
    "jwe.aes_key_wrap": "nothing: seals replies",
    "jwe.p384.agree_once": "nothing: seals replies",
    "jwe.isal_zlib.compress": "nothing: seals replies",
    "jwe.isal_zlib.compressobj": "nothing: seals replies",
    "jws.p384.sign": "nothing: seals replies",
}
ROOMS = {
    room: importlib.import_module(f"receiver.{path}")
    for room, path in (
        *(("encoding", "encoding"), ("compact", "jose.compact"), ("jws", "jose.jws"), ("jwe", "jose.jwe")),
        *(("strictjson", "strictjson"), ("signature", "signature"), ("envelope", "envelope")),
    )
}
LANGUAGE = {
    "re.compile",
    "functools.lru_cache",
    "struct.pack",
    "dataclass",
    "cast",
    "TypeVar",
}  # of constants, or of what is of a known size


def library_calls() -> set[str]:
    """Return ``room.name`` and ``room.library.name`` of every call of a library in the source of ROOMS."""
    return {f"{room}.{call}" for room in ROOMS for call in _calls_of(room) if call not in LANGUAGE}


def _calls_of(room: str) -> Iterator[str]:
    tree = ast.parse(Path(ROOMS[room].__file__).read_text())
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Name) or (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)):
            *owner, name = ast.unparse(called).split(".")
            source = imported.get(owner[0] if owner else name, "receiver")
            if source == "receiver.jose.p384" or not source.startswith(
                "receiver"
            ):  # the curve is a shell around a library
                yield ".".join([*owner, name])


class Broken(Exception):
    """An error that no library is known for."""


class Instead:
    """Stands where a library's module stood: all but one name is that module's."""

    def __init__(self, module, name, call):
        self.__dict__ |= {"_module": module, name: call}

    def __getattr__(self, name):
        return getattr(self._module, name)


@contextmanager
def failing(call: str) -> Iterator[list]:
    """Within, the library call fails; what is yielded grows with each time that it is made."""
    room, *path = call.split(".")
    module, made = ROOMS[room], []

    def broken(*_args, **_kwargs):
        made.append(call)
        raise Broken("a text that might hold a secret")

    jws._kid_in.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        instead = broken if len(path) == 1 else Instead(getattr(module, path[0]), path[1], broken)
        patch.setattr(module, path[0], instead)
        yield made


def told(answer) -> tuple:
    """Return all of ``answer`` but its id, which differs from request to request."""
    return answer.status, {name: value for name, value in answer.headers.items() if name != "x-request-id"}, answer.body


def spaced(claims, key) -> str:
    """Return ``claims`` signed with ``key`` in a spelling that the strict parser has to read."""
    text = json.dumps(claims).replace('": ', '" : ').encode()
    return signed({"alg": "ES384", "kid": key.kid}, text + b" " * (1 - len(text) % 3), key.jwk)


def test_the_list_of_library_calls_is_whole():
    assert library_calls() == set(CALLS)


@pytest.mark.case("A06")
@pytest.mark.parametrize("call", [call for call in CALLS if "signature" in CALLS[call]])
def test_a_library_call_that_fails_refuses_the_signature_as_any_other_fault_does(
    platform, keys, caplog, unchanged, call
):
    path = f"/api/storage/1/states/{platform.tenant}"
    headers = platform.headers(path) | {SIGNATURE: spaced(tokens.request_claims(platform.tenant, path), keys.platform)}
    with unchanged():
        refused = platform.call("DELETE", path, b"{}", headers | {SIGNATURE: "x.y.z"})
        with failing(call) as made:
            answer = platform.call("DELETE", path, b"{}", headers)
        assert (refused.status, platform.call("DELETE", path, b"{}", headers).status) == (401, 400)
    assert made and told(answer) == told(refused)
    assert "might hold a secret" not in caplog.text


@pytest.mark.case("B08", "B15")
@pytest.mark.parametrize("call", [call for call in CALLS if "token" in CALLS[call]])
def test_a_library_call_that_fails_refuses_the_token_as_any_other_fault_does(
    platform, state, keys, caplog, monkeypatch, unchanged, call
):
    good = tokens.seal(spaced(tokens.state_claims(state), keys.platform), keys.receiver, apu="YQ")
    token = with_header(good, epk={}) if call == "jwe.os.urandom" else good
    opened, made = envelope.open_states, []

    def open_with_fault(*args):  # only in here: the request's own signature was found good before
        with failing(call) as calls:
            made.append(calls)
            return opened(*args)

    with unchanged():
        refused = platform.post([{"token": "v.w.x.y.z"}])
        with monkeypatch.context() as patch:
            patch.setattr(envelope, "open_states", open_with_fault)
            answer = platform.post([{"token": token}])
    assert made[0] and refused.status == 400 and told(answer) == told(refused)
    assert "might hold a secret" not in caplog.text
    assert platform.post([{"token": good}]).status == 204


@pytest.mark.parametrize("call", [call for call in CALLS if "another parser" in CALLS[call]])
def test_without_the_quick_parser_the_strict_one_reads_everything(platform, state, call):
    with failing(call) as made:
        assert platform.save(state).status == 204
    assert len(made) >= 2  # of the request's claims and of the state's


@pytest.mark.parametrize("path", ["/", "/favicon.ico", "/api/storage/2/health", "/api/storage/1"])
@pytest.mark.parametrize("prefix", ["", "/flows"])
def test_who_comes_to_a_wrong_address_learns_what_this_is_and_where_the_calls_begin(ring, store, path, prefix):
    client = create_app(Settings(public_prefix=prefix), ring, store).test_client()
    answer = client.get(path)
    start = f"{prefix}/api/storage/1/"
    assert (answer.status_code, answer.json["statusCode"], answer.json["uri"]) == (404, 404, prefix + path)
    assert answer.json["message"] == (
        "There is nothing at this address."
        f" This is a receiver of External Storage: its API begins at {start}, try {start}health."
    )
    inside = client.get("/api/storage/1/nothing")
    assert (inside.status_code, inside.json["message"]) == (404, "There is nothing at this address.")
