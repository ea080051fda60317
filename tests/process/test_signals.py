"""Any signals, in any order, at any moment: a receiver ends in time, with status 0, and no handler breaks it."""

import contextlib
import http.client
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGUSR1, SIGUSR2, SIGWINCH

import pytest

from receiver.commands.interrupting import Interruption
from receiver.threadpool import Pool
from tests.support.serving import children_of, environment_of
from tests.support.waiting import until

pytestmark = pytest.mark.slow

SOON = 12  # seconds; a stop that waits for SIGKILL takes 30
STOPPING = (SIGINT, SIGQUIT, SIGTERM)
OTHERS = (SIGHUP, SIGUSR1)
TO_GROUP = [pair for pair in itertools.product((*STOPPING, *OTHERS), repeat=2) if set(pair) & set(STOPPING)]
TO_GROUP.append((SIGHUP, SIGUSR1))
TO_EACH = list(itertools.product(STOPPING, (*STOPPING, SIGHUP, SIGABRT)))


class Receiver:
    """A receiver in a process group of its own, with clients that keep it busy."""

    def __init__(self, keys, folder):
        folder.mkdir()
        self.log = folder / "log"
        environ = environment_of(keys, folder, STORAGE_BIND="127.0.0.1:0", STORAGE_ADMIN_BIND="127.0.0.1:0")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "receiver", "serve"],
                env=environ | {"STORAGE_WORKERS": "1", "PYTHONPATH": os.getcwd()},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        found = until(lambda: re.search(r"address +http://127.0.0.1:(\d+)", self.log.read_text()), 60)
        self.port = int(found[1])
        self.clients = [threading.Thread(target=self._call, daemon=True) for _ in range(3)]
        self.answered = 0
        for client in self.clients:
            client.start()
        until(lambda: self.answered > 3, 60)

    def _call(self):
        while self.process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                while True:
                    connection.request("GET", "/api/storage/1/health")
                    connection.getresponse().read()
                    self.answered += 1

    def end(self) -> int:
        """Return the exit status once everything has ended; no process of the group is left."""
        began = time.monotonic()
        status = self.process.wait(60)
        assert time.monotonic() - began < SOON, self.log.read_text()[-3000:]
        for client in self.clients:
            client.join()
        until(lambda: not os.path.exists(f"/proc/{self.process.pid}"))
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        text = self.log.read_text()
        assert not re.search(r"Traceback|a defect|unlocked|ended by an exception|Exception in", text), text[-3000:]
        return status


def _to_group(keys, folder, pair) -> int:
    one = Receiver(keys, folder)
    for number in pair * 2:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, number)
    if not set(pair) & set(STOPPING):
        before = one.answered
        until(lambda: one.answered > before + 20)
        one.process.terminate()
    return one.end()


def _to_master_and_worker(keys, folder, pair) -> int:
    one = Receiver(keys, folder)
    children = children_of(one.process.pid)
    for pid, number in [(one.process.pid, pair[0]), *((child, pair[1]) for child in children)] * 2:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return one.end()


@pytest.mark.parametrize(("send", "pairs"), [(_to_group, TO_GROUP), (_to_master_and_worker, TO_EACH)])
def test_every_pair_of_signals_ends_a_busy_receiver_in_time_with_status_0(keys, tmp_path, send, pairs):
    with ThreadPoolExecutor(4) as pool:
        done = {
            pair: pool.submit(send, keys, tmp_path / f"{pair[0].name}-{pair[1].name}-{number}", pair)
            for number, pair in enumerate(pairs)
        }
        assert {pair: future.result() for pair, future in done.items()} == dict.fromkeys(pairs, 0)


def test_ctrl_c_does_not_wait_for_an_upload_that_does_not_end(keys, platform_at, tenant, tmp_path):
    one = Receiver(keys, tmp_path / "one")
    path = f"/api/storage/1/states/{tenant}"
    headers = platform_at(f"http://127.0.0.1:{one.port}").headers(path) | {
        "Content-Type": "application/json",
        "Content-Length": "9",
        "Expect": "100-continue",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", one.port), 30) as upload:
        upload.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
        assert b" 100 " in upload.recv(1000)  # a thread waits for the body now
        os.killpg(one.process.pid, SIGINT)
        assert one.end() == 0


def test_a_group_gets_signals_that_are_not_meant_for_workers_and_nothing_ends(keys, tmp_path):
    one = Receiver(keys, tmp_path / "one")
    children = children_of(one.process.pid)
    for number in (SIGUSR1, SIGUSR2, SIGWINCH, SIGTTIN):
        for child in children:
            os.kill(child, number)
    before = one.answered
    until(lambda: one.answered > before + 20)
    assert children_of(one.process.pid) == children
    one.process.send_signal(SIGTERM)
    assert one.end() == 0


def test_a_pool_may_be_shut_down_in_the_middle_of_its_shutdown():
    """As a second signal did: a thread that waits was released twice, and the error kept all others from ending."""
    pool, released = Pool(4, 1, lambda job: None), []

    class Lock:
        def release(self):
            released.append(self)
            pool.shutdown()

    class Seat:
        def __init__(self):
            self.woken = Lock()

    pool._idle = [Seat() for _ in range(3)]
    pool.shutdown()
    assert len(released) == len(set(released)) == 3


def test_a_second_signal_does_not_break_off_what_the_first_began(monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    Interruption()
    assert set(handlers) == {SIGINT, SIGTERM}
    with pytest.raises(KeyboardInterrupt):
        handlers[SIGTERM](SIGTERM, None)
    for number, handler in handlers.items():
        handler(number, None)


@pytest.mark.parametrize("first", [SIGINT, SIGTERM])
def test_a_demo_that_is_interrupted_twice_leaves_no_receiver_behind(tmp_path, first):
    environ = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1", "STORAGE_RUN_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "receiver", "demo"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        assert "a store is created" in process.stdout.readline()
        children = children_of(process.pid)
        process.send_signal(first)
        process.send_signal(SIGTERM)
        assert process.wait(60) == 1
    # Its parent may be gone first; then init has to take note of its end.
    until(lambda: not any(os.path.exists(f"/proc/{child}") for child in children), 5)
    assert not list(tmp_path.glob("receiver-demo-*"))
