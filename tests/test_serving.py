"""What needs real processes: several workers, signals, large and chunked bodies, starting in odd places."""

import contextlib
import http.client
import itertools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from urllib.parse import urlsplit

import pytest

from receiver.commands.demo import running_receiver
from receiver.mock_platform import tokens
from receiver.mock_platform.flow_states import FlowRun, ticks
from receiver.settings import parsers
from tests.conftest import assert_problem, loaded, rows_of

SECONDS = 10


def children_of(pid: int) -> list[int]:
    """Return the processes that ``pid`` started, once there are any."""
    for _ in range(100):
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            if found := [int(child) for child in file.read().split()]:
                return found
        time.sleep(0.05)
    raise AssertionError("no worker was started")


def address_of(running) -> tuple[str, int]:
    parts = urlsplit(running.url)
    return parts.hostname, parts.port


@contextlib.contextmanager
def serving(keys, folder, **environment):
    with open(folder / "log", "a") as log, running_receiver(keys, folder, log, **environment) as running:
        yield running


class Writer(threading.Thread):
    """Saves and loads one state over and over; remembers the newest save that was acknowledged."""

    def __init__(self, client, seed, until):
        super().__init__()
        self.client = client
        self.run_ = FlowRun(client.tenant, seed)
        self.until = until
        self.counts, self.wrong = {}, []
        self.acknowledged = None

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.turn()
        except Exception as failure:
            self.wrong.append(repr(failure))

    def turn(self):
        self.run_.step()
        state = self.run_.state()
        self.count(self.client.save(state).status)
        self.acknowledged = state["content"]
        answer = self.client.load(self.run_.id)
        self.count(answer.status)
        if self.client.open(self.run_.id, answer) != self.acknowledged:
            self.wrong.append("another content than was acknowledged last")
        if len(self.run_.entries) > 30:  # keep the state at a realistic size
            del self.run_.entries[6:]
            self.run_.values.clear()

    def count(self, status):
        self.counts[status] = self.counts.get(status, 0) + 1


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


def test_sigterm_finishes_what_runs_and_exits_0(keys, platform_at, tenant, state, tmp_path):
    with serving(keys, tmp_path) as running:
        path = f"/api/storage/1/states/{tenant}"
        body = json.dumps([{"token": tokens.seal_state(state, keys)}]).encode()
        host, port = running.url.removeprefix("http://").split(":")
        slow = http.client.HTTPConnection(host, int(port), timeout=30)
        headers = platform_at(running.url).headers(path)
        slow.putrequest("POST", path)
        for name, value in (headers | {"Content-Type": "application/json", "Content-Length": str(len(body))}).items():
            slow.putheader(name, value)
        slow.endheaders(body[:100])
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        slow.send(body[100:])
        response = slow.getresponse()
        assert (response.status, response.read()) == (204, b"")
        slow.close()
        assert running.process.wait(30) == 0
    with serving(keys, tmp_path) as running:
        assert loaded(platform_at(running.url), state["id"]) == state["content"]


@pytest.mark.case("G05")
def test_sigterm_under_load_loses_no_answered_save_and_exits_0(keys, platform_at, tenant, tmp_path):
    saved, lock = {}, threading.Lock()

    def write(url, seed):
        flow, client = FlowRun(tenant, seed), platform_at(url)
        with contextlib.suppress(http.client.HTTPException, OSError):
            while True:
                flow.step()
                state = flow.state()
                assert client.save(state).status in (204, 503)
                with lock:
                    saved[flow.id] = state["content"]

    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="warning") as running:
        threads = [threading.Thread(target=write, args=(running.url, seed)) for seed in range(12)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(35) == 0
        for thread in threads:
            thread.join()
    assert len(saved) == 12
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        for id, content in saved.items():
            stored = loaded(client, id)
            assert stored == content or len(stored) > len(content)  # one more may be stored without an answer


@pytest.mark.case("G01", "G02")
def test_killed_workers_and_masters_lose_nothing_that_was_acknowledged(keys, platform_at, tenant, tmp_path):
    def until_answered(call):
        for _ in range(200):
            try:
                answer = call()
            except (http.client.HTTPException, OSError):
                time.sleep(0.05)
                continue
            if answer.status < 500:
                return answer
        raise AssertionError("no answer")

    flow, contents = FlowRun(tenant, 5), {}
    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="warning") as running:
        client = platform_at(running.url)
        for number in range(40):
            state = flow.state() | {"id": str(uuid.UUID(int=number)), "content": f"content {number}"}
            assert until_answered(lambda state=state: client.save(state)).status == 204
            contents[state["id"]] = state["content"]
            if number % 4 == 0:
                alive = children_of(running.process.pid)
                os.kill(alive[number % len(alive)], signal.SIGKILL)
        workers = children_of(running.process.pid)
        running.process.kill()
        running.process.wait()
        deadline = time.monotonic() + 30
        while any(os.path.exists(f"/proc/{worker}") for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    began = time.monotonic()
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.health().status == 200
        assert time.monotonic() - began < 5
        for id, content in contents.items():
            assert loaded(client, id) == content


def test_a_keep_alive_connection_is_told_when_the_worker_stops(keys, platform_at, tmp_path):
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.health().headers["connection"] == "keep-alive"
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert client.health().headers["connection"] == "close"
        assert running.process.wait(30) == 0


@pytest.mark.parametrize("sent", [b"", b"GET /api/storage/1/hea"])
def test_connections_without_a_request_do_not_delay_the_end(keys, tmp_path, sent):
    with serving(keys, tmp_path) as running:
        host, port = running.url.removeprefix("http://").split(":")
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                connection = stack.enter_context(socket.create_connection((host, int(port))))
                connection.sendall(sent)
            time.sleep(0.5)
            began = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(30) == 0
            assert time.monotonic() - began < 6


def test_a_client_that_does_not_take_its_reply_is_left(keys, platform_at, state, tmp_path):
    state["content"] = os.urandom(6_000_000).hex()
    few = {"STORAGE_WORKERS": "1", "STORAGE_THREADS": "1", "STORAGE_READ_TIMEOUT": "1"}
    with serving(keys, tmp_path, STORAGE_MAX_BODY="64MiB", **few) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        path = f"/api/storage/1/states/{client.tenant}/{state['id']}"
        lines = [f"{name}: {value}" for name, value in client.headers(path).items()]
        host, port = running.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as lazy:
            lazy.sendall("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode())
            time.sleep(1)
            client.close()
            began = time.monotonic()
            assert client.health().status == 200
            assert time.monotonic() - began < 25
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_clients_that_send_a_byte_now_and_then_hold_nobody_up(keys, platform_at, state, tmp_path):
    few = {"STORAGE_WORKERS": "1", "STORAGE_THREADS": "2"}
    with serving(keys, tmp_path, **few) as running, contextlib.ExitStack() as stack:
        client = platform_at(running.url)
        path = f"/api/storage/1/states/{client.tenant}"
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", "Content-Length: 100000"]
        captured = [f"{name}: {value}" for name, value in client.headers(path).items()]
        began, open_ = time.monotonic(), []
        for _ in range(40):
            open_.append(stack.enter_context(socket.create_connection(address_of(running))))
            open_[-1].sendall("\r\n".join([*lines, *captured, "", ""]).encode())
        slowest = 0.0
        while open_ and time.monotonic() - began < 15:
            asked = time.monotonic()
            assert client.save(state).status == 204
            slowest = max(slowest, time.monotonic() - asked)
            for dripping in [*open_]:
                try:
                    dripping.sendall(b" ")
                    if dripping.recv(1, socket.MSG_DONTWAIT):
                        open_.remove(dripping)  # it was answered
                except BlockingIOError:
                    pass
            time.sleep(0.2)
        assert open_ == []
        assert time.monotonic() - began >= 5
        assert slowest < 4  # held threads would be for five seconds at least
        (worker,) = children_of(running.process.pid)
        assert len(os.listdir(f"/proc/{worker}/task")) <= 4  # those that were started for the others have ended
        client.close()


def test_addresses_that_are_not_listed_are_cut_off_and_do_not_flood_the_log(keys, tmp_path):
    listed = {"STORAGE_ALLOW_FROM": "192.0.2.0/24", "STORAGE_WORKERS": "1"}
    with serving(keys, tmp_path, **listed) as running:
        for _ in range(30):
            with (
                socket.create_connection(address_of(running), timeout=10) as connection,
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(b"GET /api/storage/1/health HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(100) == b""
    log = (tmp_path / "log").read_text()
    assert log.count("closed: 127.0.0.1 is not one of STORAGE_ALLOW_FROM (1 times") == 1
    assert log.count("STORAGE_ALLOW_FROM") == 1
    with serving(keys, tmp_path, STORAGE_TRUSTED_PROXIES="127.0.0.1", **listed) as running:
        connection = http.client.HTTPConnection(*address_of(running), timeout=10)
        for forwarded, status in (("192.0.2.7", 404), ("192.0.2.7, 198.51.100.1", 403)):
            connection.request("GET", "/api/storage/1/nothing", headers={"X-Forwarded-For": forwarded})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["statusCode"]) == (status, status)
        connection.request("GET", "/api/storage/1/health")
        assert connection.getresponse().status == 200
        connection.close()


def test_idle_connections_beyond_a_thousand_keep_nobody_out(keys, platform_at, state, tmp_path):
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2_000
    assert most == resource.RLIM_INFINITY or most >= needed, "the machine lets nobody open that many files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), most))
    try:
        few = {"STORAGE_WORKERS": "1", "STORAGE_READ_TIMEOUT": "300"}  # longer than a client waits
        with serving(keys, tmp_path, **few) as running, contextlib.ExitStack() as stack:
            for _ in range(1_200):
                stack.enter_context(socket.create_connection(address_of(running)))
            client = platform_at(running.url)
            assert client.save(state).status == 204
            assert loaded(client, state["id"]) == state["content"]
            platform_at.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


def test_a_worker_without_file_descriptors_waits_for_some(keys, platform_at, tmp_path):
    with serving(keys, tmp_path, STORAGE_WORKERS="1") as running:
        client = platform_at(running.url)
        assert client.health().status == 200
        (worker,) = children_of(running.process.pid)
        used = len(os.listdir(f"/proc/{worker}/fd"))
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(address_of(running)))
            time.sleep(1)
            assert client.health().status == 200  # those that are in are served
        deadline = time.monotonic() + SECONDS  # until the worker has let go of them
        while platform_at(running.url).health().status != 200:
            assert time.monotonic() < deadline
        assert children_of(running.process.pid) == [worker]
        platform_at.close()
    log = (tmp_path / "log").read_text()
    assert log.count("no new connection can be taken: Too many open files") == 1
    assert "Traceback" not in log


@pytest.mark.case("G10")
def test_a_database_that_is_gone_or_damaged_stays_an_outage_when_a_worker_starts_anew(
    keys, platform_at, state, tmp_path
):
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        os.rename(tmp_path / "states.db", tmp_path / "moved.db")

        def replace_a_worker():
            before = children_of(running.process.pid)
            os.kill(before[0], signal.SIGKILL)
            while before[0] in children_of(running.process.pid) or len(children_of(running.process.pid)) < 2:
                time.sleep(0.05)
            time.sleep(1)

        replace_a_worker()
        for _ in range(10):
            fresh = platform_at(running.url)
            assert fresh.load(state["id"]).status == 503
        (tmp_path / "states.db").write_bytes(b"this is no database " * 5000)
        replace_a_worker()
        for _ in range(10):
            assert platform_at(running.url).load(state["id"]).status in (500, 503)
        assert running.process.poll() is None


def environment_of(keys, folder, **more):
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "PYTHONPATH")}
    return clean | {
        "STORAGE_ADMIN_BIND": "off",
        "STORAGE_LOG_FORMAT": "text",
        "DATABASE_URL": f"sqlite:///{folder}/states.db",
        "PLATFORM_KEY": json.dumps(keys.platform.public()),
        "RECEIVER_KEY": json.dumps(keys.receiver.private()),
        **more,
    }


@pytest.mark.parametrize("worker_class", [None, "gthread", "receiver.server.worker.Worker"])
def test_gunicorn_can_run_the_application_itself(keys, platform_at, state, tmp_path, worker_class):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["-k", worker_class] if worker_class else []
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "--no-control-socket",
            "-b",
            f"127.0.0.1:{port}",
            *options,
            "receiver.app:create_app()",
        ],
        env=environment_of(keys, tmp_path),
        stderr=subprocess.DEVNULL,
    )
    try:
        client = platform_at(f"http://127.0.0.1:{port}")
        for _ in range(100):
            with contextlib.suppress(OSError):
                if client.health().status == 200:
                    break
            time.sleep(0.1)
        assert client.save(state).status == 204
        assert loaded(client, state["id"]) == state["content"]
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_it_starts_in_a_bare_environment_on_a_unix_socket(keys, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", "serve"],
        env=environment_of(keys, tmp_path, STORAGE_BIND=f"unix:{tmp_path}/socket", LC_ALL="C", HOME="/nonexistent"),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        banner = "".join(itertools.takewhile(lambda line: "make demo" not in line, process.stdout))
        assert f"{tmp_path}/socket" in banner
        assert keys.platform.jwk.thumbprint() in banner
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"{tmp_path}/socket")
            connection.sendall(b"GET /api/storage/1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_where_the_port_is_given_as_the_java_service_has_it_all_addresses_listen(keys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "receiver", "serve"],
        env=environment_of(keys, tmp_path, PORT=str(port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert any(f"http://{parsers.every_address(port)}" in line for line in process.stdout)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_no_store_at_the_start_is_a_mistake_and_none_later_is_an_outage(keys, platform_at, state, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-m", "receiver", "serve"],
        env=environment_of(keys, tmp_path / "no" / "such"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 78
    assert "DATABASE_URL" in ran.stderr
    assert "is the volume mounted?" in ran.stderr
    with serving(keys, tmp_path) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        os.rename(tmp_path / "states.db", tmp_path / "moved.db")
        assert_problem(client.load(state["id"]), 503)
        os.rename(tmp_path / "moved.db", tmp_path / "states.db")
        assert loaded(client, state["id"]) == state["content"]


def test_times_are_written_as_the_platform_does():
    moment = FlowRun("t", 1).moment
    assert re.fullmatch(r"2026-\d\d-\d\dT\d\d:\d\d:\d\d\.0000042[+]01:00", ticks(moment, 42))
