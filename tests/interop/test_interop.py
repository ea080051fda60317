"""Tokens that libraries of other languages made (tests/interop): each opens, or is refused, as it is marked."""

import contextlib
import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from werkzeug.serving import make_server

from receiver import envelope, problems
from receiver.app import create_app
from receiver.mock_platform import tokens as platform_tokens
from receiver.mock_platform.client import Client
from receiver.mock_platform.keys import KeyPair, StoreKeys
from receiver.settings import Settings
from tests.support.platform_client import assert_problem, ring_of

FOLDER = Path(__file__).parent
DATA = json.loads((FOLDER / "interop.json").read_text("utf-8"))
TENANT = DATA["tenant"]
STORES = [StoreKeys(*(KeyPair.of(pair[role]) for role in ("platform", "receiver"))) for pair in DATA["pairs"]]
RINGS = [ring_of(keys) for keys in STORES]
LIFETIME, BACKDATED, SKEW = 12_000, 120, 30
NOT_OPENED = "item 0: the token cannot be opened"
SIGNATURE = "X-ManyWho-Signature"


def named(made: dict) -> str:
    return f"{made['library']}-{made['version']}-{made['alg'][-6:]}-{made['enc']}-zip={made['zip']}-pair{made['pair']}"


def opened(made: dict, now: float):
    (state,) = envelope.open_states([made["token"]], TENANT, RINGS[made["pair"]], now, SKEW, 1 << 25)
    return state


def test_all_tokens_and_libraries_are_there():
    assert len(DATA["tokens"]) == 103
    assert Counter(made["opens"] for made in DATA["tokens"]) == {True: 99, False: 4}
    text = (FOLDER / "README.md").read_text("utf-8")
    for (library, version), count in Counter((made["library"], made["version"]) for made in DATA["tokens"]).items():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {library} | {version}"))
        assert int(line.split("|")[4]) == count
    zeros = {part for made in DATA["tokens"] for part in made.get("leadingZero", ())}
    assert zeros == {"epk.x", "epk.y", "Z", "r", "s"}


@pytest.mark.case("B06", "B22")
@pytest.mark.parametrize("made", DATA["tokens"], ids=named)
def test_a_token_of_another_library_opens_or_is_refused_as_it_is_marked(made):
    now = made["now"]
    if not made["opens"]:
        with pytest.raises(problems.BadRequest) as refusal:
            opened(made, now)
        assert refusal.value.message == NOT_OPENED
        return
    claims = made["claims"]
    assert (claims["exp"], claims["nbf"]) == (now + LIFETIME, now - BACKDATED)
    state = opened(made, now)
    assert state.content.text == claims["content"]
    assert (state.id, state.tenant, state.is_done) == (claims["id"], TENANT, claims["isDone"])
    assert (state.updated_at.text, state.flow) == (claims["updatedAt"], claims["flow"])
    for moment, fault in (
        (claims["exp"] + SKEW + 1, "exp is past"),
        (claims["nbf"] - SKEW - 1, "nbf is in the future"),
    ):
        with pytest.raises(problems.BadRequest) as refusal:
            opened(made, moment)
        assert refusal.value.message == f"item 0: {fault}"
    assert opened(made, claims["exp"] + SKEW - 1).id == opened(made, claims["nbf"] - SKEW).id == claims["id"]


def sample() -> list[dict]:
    """Return of each library and version the first two that open, one by each pair with a leading zero, and all others."""
    seen, found = Counter(), []
    for made in DATA["tokens"]:
        maker = made["library"], made["version"]
        if not made["opens"] or seen[maker] < 2 or made.get("leadingZero"):
            found.append(made)
            seen[maker] += 1
    return found


class SetClock:
    """Seconds since the epoch, as a test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def calls_at(store):
    """Return a function that sets the clock of an application on a port of its own, which has all keys.

    What it returns calls that receiver for the pair ``keys``, each request signed at the same ``now``.
    """
    clock = SetClock()
    server = make_server("127.0.0.1", 0, create_app(Settings(), ring_of(*STORES), store, clock))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    clients = contextlib.ExitStack()

    def at(keys: StoreKeys, now: float):
        clock.now = now
        client = clients.enter_context(contextlib.closing(Client(f"http://127.0.0.1:{server.port}", TENANT, keys)))

        def call(method, path, body=None):
            claims = platform_tokens.request_claims(TENANT, path, now)
            signed = {SIGNATURE: platform_tokens.sign(claims, keys.platform)}
            return client.call(method, path, body, client.headers(path) | signed)

        return call

    with clients:
        yield at
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.case("B06", "B22")
@pytest.mark.parametrize("made", sample(), ids=named)
def test_a_token_of_another_library_is_saved_and_loaded_over_http(made, calls_at):
    path = f"/api/storage/1/states/{TENANT}"
    body = json.dumps([{"token": made["token"]}]).encode()
    claims, keys = made["claims"], STORES[made["pair"]]
    own = f"{path}/{claims['id']}"
    refused = [(made["now"], NOT_OPENED)]
    if made["opens"]:
        refused = [(claims["exp"] + SKEW + 1, "item 0: exp"), (claims["nbf"] - SKEW - 1, "item 0: nbf")]
    for moment, message in refused:
        call = calls_at(keys, moment)
        assert_problem(call("POST", path, body), 400, message)
        assert call("GET", own).status == 404
    if not made["opens"]:
        return
    call = calls_at(keys, made["now"])
    assert call("POST", path, body).status == 204
    answer = call("GET", own)
    assert answer.status == 200
    content = platform_tokens.open_reply(answer.json["token"], TENANT, claims["id"], keys, made["now"])
    assert content == claims["content"]
