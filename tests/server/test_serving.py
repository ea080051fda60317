"""Several workers, large bodies and many writers: nothing is lost and the newest is read."""

import json
import re
import threading
import time
import uuid

import pytest

from receiver.mock_platform import tokens
from tests.support.platform_client import loaded
from tests.support.serving import SECONDS, Writer, children_of, serving
from tests.support.states import rows_of

pytestmark = pytest.mark.slow


def test_eight_clients_through_two_workers_lose_nothing_and_always_read_the_newest(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_WORKERS="2", STORAGE_LOG_LEVEL="warning") as running:
        until = time.monotonic() + SECONDS
        writers = [Writer(platform_at(running.url), seed, until) for seed in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [writer.wrong for writer in writers] == [[]] * 8
        counts = [writer.counts for writer in writers]
        assert {status for count in counts for status in count} == {200, 204}
        client = platform_at(running.url)
        for writer in writers:
            assert loaded(client, writer.run_.id) == writer.acknowledged
        assert len(children_of(running.process.pid)) == 2
    total = sum(sum(count.values()) for count in counts)
    print(f"{total} requests in {SECONDS} s by 8 clients through 2 workers: {total / SECONDS:.0f} a second")
    assert total > 8 * SECONDS


def test_one_state_written_by_many_ends_with_the_newest_and_is_never_read_older(keys, platform_at, state, tmp_path):
    def version(number):
        return state | {"updatedAt": f"2026-05-01T00:00:00.{number:07d}Z", "content": json.dumps({"version": number})}

    numbers = [(7 * number) % 400 for number in range(400)]
    newest, wrong, lock = [-1], [], threading.Lock()

    def write(url, mine):
        client = platform_at(url)
        for number in mine:
            if client.save(version(number)).status != 204:
                wrong.append(f"save {number}")
            with lock:
                newest[0] = max(newest[0], number)

    def read(url, done):
        client = platform_at(url)
        while not done.is_set():
            with lock:
                at_least = newest[0]
            answer = client.load(state["id"])
            if answer.status == 200 and json.loads(client.open(state["id"], answer))["version"] < at_least:
                wrong.append(f"older than {at_least}")

    with serving(keys, tmp_path) as one, serving(keys, tmp_path) as two:
        done = threading.Event()
        writers = [
            threading.Thread(target=write, args=(one.url if n % 2 else two.url, numbers[n::6])) for n in range(6)
        ]
        readers = [threading.Thread(target=read, args=(running.url, done)) for running in (one, two)]
        for thread in writers + readers:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        assert wrong == []
        assert loaded(platform_at(two.url), state["id"]) == '{"version": 399}'


@pytest.mark.case("A21")
def test_what_one_worker_recorded_another_one_knows(keys, platform_at, tenant, state, tmp_path):
    with serving(keys, tmp_path, STORAGE_WORKERS="4") as running:
        path = f"/api/storage/1/states/{tenant}"
        first = platform_at(running.url)
        body = json.dumps([{"token": tokens.seal_state(state, keys)}]).encode()
        headers = first.headers(path)
        assert first.call("POST", path, body, headers).status == 204
        kept = rows_of(tmp_path / "states.db")
        for _ in range(100):  # a connection each, so that all workers get their share
            client = platform_at(running.url)
            assert client.call("POST", path, body, headers).status == 204
            assert client.call("DELETE", path, json.dumps([state["id"]]).encode(), headers).status == 401
            client.close()
        assert rows_of(tmp_path / "states.db") == kept


@pytest.mark.case("B11")
@pytest.mark.parametrize("compressed", [True, False])
def test_twenty_megabytes_make_the_round_trip(keys, platform_at, state, tmp_path, compressed):
    state["content"] = json.dumps(
        {"page": ["äöü" + str(uuid.UUID(int=number)) for number in range(440_000)]}, ensure_ascii=False
    )
    assert len(state["content"].encode()) > 20_000_000
    with serving(keys, tmp_path, STORAGE_MAX_BODY="64MiB") as running:
        client = platform_at(running.url)
        assert client.save(state, compressed=compressed).status == 204
        assert loaded(client, state["id"]) == state["content"]


@pytest.mark.case("B12")
def test_eight_zip_bombs_at_once_stay_below_the_cap_of_memory(keys, platform_at, tenant, state, tmp_path):
    # What does not begin as a token is not inflated at all.
    bomb, dud = (
        json.dumps([{"token": tokens.seal(beginning + "A" * 98_700_000, keys.receiver)}]).encode()
        for beginning in ("A" * 100 + ".", "")
    )
    with serving(keys, tmp_path, STORAGE_WORKERS="1", STORAGE_THREADS="8") as running:
        (worker,) = children_of(running.process.pid)
        clients = [platform_at(running.url) for _ in range(8)]
        path = f"/api/storage/1/states/{tenant}"
        answers = []
        threads = [
            threading.Thread(target=lambda c=c: answers.append(c.call("POST", path, bomb).status)) for c in clients
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [413] * 8
        assert clients[0].call("POST", path, dud).status == 400
        assert platform_at(running.url).save(state).status == 204
        with open(f"/proc/{worker}/status") as file:
            peak = int(re.search(r"VmHWM:\s+(\d+) kB", file.read()).group(1)) / 1024
    print(f"peak memory of the worker: {peak:.0f} MiB")
    assert peak < 8 * 64 + 150  # STORAGE_MAX_INFLATED for each thread, and the worker itself
