"""STORAGE_REPLY_COMPRESSION: which replies are zipped, and that each is the same content."""

import json

import pytest
from jwcrypto import jwe as jose_jwe

from receiver import settings
from receiver.app import create_app
from receiver.settings import Settings
from tests.support.joserfc_platform import load as load_by_joserfc
from tests.support.platform_client import InProcess, loaded

LIMIT = 2000


def header_of(platform, id) -> dict:
    outer = jose_jwe.JWE()
    outer.deserialize(platform.load(id).json["token"], platform.keys.platform.jwk)
    return outer.jose_header


@pytest.mark.case("B20")
@pytest.mark.parametrize(
    ("value", "content", "zipped"),
    [
        *(("always", "x" * 10, True), ("always", "x" * 3_000_000, True)),
        *(("never", "x" * 10, False), ("never", "", False), ("never", "x" * 3_000_000, False)),
        *(
            (f"{LIMIT}", "x" * (LIMIT - 1), True),
            (f"{LIMIT}", "x" * LIMIT, True),
            (f"{LIMIT}", "x" * (LIMIT + 1), False),
        ),
        *(
            (f"{LIMIT}", "é" * (LIMIT // 2), True),
            (f"{LIMIT}", "é" * (LIMIT // 2) + "x", False),
            (f"{LIMIT}", "", True),
        ),
        *(("1MiB", "x" * (1 << 20), True), ("1MiB", "x" * (1 << 20) + "x", False)),
    ],
)
def test_replies_are_zipped_up_to_the_size_of_content_that_is_set(
    ring, store, keys, tenant, state, value, content, zipped
):
    declared, mistakes = settings.read({"STORAGE_REPLY_COMPRESSION": value})
    assert mistakes == []
    platform = InProcess(create_app(declared, ring, store).test_client(), tenant, keys)
    assert platform.save(state | {"content": content}).status == 204
    assert header_of(platform, state["id"]).get("zip") == ("DEF" if zipped else None)
    assert loaded(platform, state["id"]) == content
    assert load_by_joserfc(platform, keys, state["id"])[0] == content


def test_compression_is_always_as_the_java_service_does_it():
    assert Settings().reply_compression == "always"


@pytest.mark.parametrize("value", ["Always", "yes", "0", "-1", "1.5", "100 kilobytes", "9GiB"])
def test_another_value_is_a_mistake_that_says_what_is_valid(value):
    (mistake,) = settings.read({"STORAGE_REPLY_COMPRESSION": value})[1]
    assert mistake.startswith("STORAGE_REPLY_COMPRESSION: must be always, never, or bytes from 1 to ")


@pytest.mark.parametrize(("library", "limit", "set_to"), [("jose4j", 204_800, 100_000), ("nimbus", 100_000, 50_000)])
def test_half_of_a_librarys_limit_is_enough_for_json(ring, store, keys, tenant, state, library, limit, set_to):
    """README, "Compression of replies": the library counts the signed token that is inside."""
    content = json.dumps([{"name": f"value {number}", "type": "string"} for number in range(set_to // 40)])
    content = content[:set_to]
    platform = InProcess(create_app(Settings(reply_compression=set_to), ring, store).test_client(), tenant, keys)
    assert platform.save(state | {"content": content}).status == 204
    outer = jose_jwe.JWE()
    outer.deserialize(platform.load(state["id"]).json["token"], platform.keys.platform.jwk)
    assert outer.jose_header["zip"] == "DEF" and len(content) > set_to * 0.9
    assert len(outer.plaintext) < limit
