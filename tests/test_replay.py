"""One signature, one change: whichever worker, receiver or start meets it, on every store."""

import json

import pytest

from receiver.mock_platform import tokens
from tests.support.backends import url_of_an_empty_store
from tests.support.platform_client import assert_problem, loaded
from tests.support.serving import serving

pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", "filesystem", "postgresql", "mariadb"])
def url(request, tmp_path):
    """The URL of an empty store of each kind."""
    return url_of_an_empty_store(request, request.param, tmp_path / "replay")


@pytest.mark.case("A21")
def test_a_signature_makes_one_change_whoever_meets_it_and_after_a_restart(
    keys, platform_at, tenant, state, url, tmp_path
):
    path = f"/api/storage/1/states/{tenant}"
    body = json.dumps([{"token": tokens.seal_state(state, keys)}]).encode()
    other = json.dumps([{"token": tokens.seal_state(state | {"content": "forged"}, keys)}]).encode()
    headers = None

    def replay(running):
        client = platform_at(running.url)  # a connection each time, so that every worker gets its share
        assert client.call("POST", path, body, headers).status == 204
        assert_problem(client.call("POST", path, other, headers), 401)
        assert_problem(client.call("DELETE", path, json.dumps([state["id"]]).encode(), headers), 401)
        client.close()

    for start in range(2):
        with (
            serving(keys, tmp_path, DATABASE_URL=url, STORAGE_WORKERS="2") as one,
            serving(keys, tmp_path, DATABASE_URL=url, STORAGE_WORKERS="2") as two,
        ):
            if headers is None:
                headers = platform_at(one.url).headers(path)
                assert platform_at(one.url).call("POST", path, body, headers).status == 204
                later = state | {"updatedAt": "2027-01-01T00:00:00Z", "content": "later"}
                assert platform_at(two.url).save(later).status == 204
            for _ in range(4):
                replay(one)
                replay(two)
            if start == 0:
                assert loaded(platform_at(two.url), state["id"]) == "later"
                assert platform_at(one.url).delete([state["id"]]).status == 204
                replay(two)
            assert platform_at(one.url).load(state["id"]).status == 404  # nobody brought it back
