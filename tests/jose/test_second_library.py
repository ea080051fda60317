"""A platform client written with joserfc, another JOSE library than the receiver and the mock platform use."""

import json
import random
import time
import uuid

import pytest
from joserfc import jwe
from joserfc.jwk import ECKey

from receiver.commands.demo import running_receiver
from receiver.mock_platform.client import Client
from tests.support.joserfc_platform import ALGORITHMS, headers, load, registry, sign

pytestmark = pytest.mark.slow


def save(client, keys, state, alg, enc, compressed):
    now = int(time.time())
    times = {"iat": now, "nbf": now, "exp": now + 18000, "jti": uuid.uuid4().hex}
    claims = state | times | {"iss": "manywho", "aud": [client.tenant], "sub": state["id"]}
    header = {"alg": alg, "enc": enc, "kid": keys.receiver.kid, "cty": "JWT"} | ({"zip": "DEF"} if compressed else {})
    receiver_key = ECKey.import_key(keys.receiver.public())
    token = jwe.encrypt_compact(header, sign(claims, keys), receiver_key, registry=registry())
    path = f"/api/storage/1/states/{client.tenant}"
    return client.call("POST", path, json.dumps([{"token": token}]).encode(), headers(client, keys, path))


def content_of(size: int) -> str:
    """Return JSON text of ``size`` characters, some of several bytes, that compresses as prose does."""
    chance = random.Random(size)
    words = ["größe", "住所", "\U0001f469", "customer", '"quoted"', "back\\slash", "invoice", "2026-01-01T00:00:00Z"]
    text = json.dumps({"words": [chance.choice(words) for _ in range(size // 14)]}, ensure_ascii=False)
    return text.ljust(size)[:size]


@pytest.fixture(scope="module")
def running(keys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("second")
    with (
        open(folder / "log", "w") as log,
        # 20 MB that are not compressed make a body of over 32 MiB, the default limit
        running_receiver(keys, folder, log, STORAGE_MAX_BODY="128MiB", STORAGE_MAX_INFLATED="128MiB") as running,
    ):
        yield running


@pytest.mark.parametrize("alg", ALGORITHMS[:2])
@pytest.mark.parametrize("enc", ALGORITHMS[2:4])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("size", [10_000, 1_000_000, 20_000_000])
def test_another_library_saves_and_loads_identical_content(running, keys, tenant, state, alg, enc, compressed, size):
    client = Client(running.url, tenant, keys, timeout=120)
    state["content"] = content_of(size)
    assert save(client, keys, state, alg, enc, compressed).status == 204
    assert load(client, keys, state["id"])[0] == state["content"]
    client.close()


@pytest.mark.case("B20")
def test_another_library_verifies_a_thousand_replies_and_none_repeats(running, keys, tenant, state):
    client = Client(running.url, tenant, keys)
    assert save(client, keys, state, *ALGORITHMS[:3:2], True).status == 204
    replies = [load(client, keys, state["id"]) for _ in range(1000)]
    client.close()
    contents, jtis, ephemeral = (set(values) for values in zip(*replies, strict=True))
    assert (contents, len(jtis), len(ephemeral)) == ({state["content"]}, 1000, 1000)
