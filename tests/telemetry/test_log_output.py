"""Standard error that is not read, full, broken or closed: no request waits, lines are counted, the end is in time."""

import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from receiver.admin.client import AdminClient
from receiver.telemetry.log_losses import Losses
from receiver.telemetry.log_output import LineOutput
from receiver.telemetry.standard_error import LineStream
from tests.support.admin import counted, value
from tests.support.platform_client import loaded
from tests.support.serving import environment_of
from tests.support.waiting import until

pytestmark = pytest.mark.slow

LINE = b"x" * 99 + b"\n"
PIPE_BUF = 4096


@contextlib.contextmanager
def pipe(size=PIPE_BUF):
    """A pipe with little room: what reads, and what writes."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, size)
    try:
        yield ours, theirs
    finally:
        for number in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(number)


def fill(number):
    """Write to the pipe ``number`` until it takes no more."""
    os.set_blocking(number, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(number, b"x" * (PIPE_BUF - 1) + b"\n")
    os.set_blocking(number, True)


def read_all(number, output) -> bytes:
    """Return all that comes until ``output`` has nothing left."""
    os.set_blocking(number, False)
    found = b""

    def is_over():
        nonlocal found
        with contextlib.suppress(BlockingIOError):
            found += os.read(number, 1 << 20)
        return not output._waiting

    until(is_over)
    output.flush()
    with contextlib.suppress(BlockingIOError):
        found += os.read(number, 1 << 20)
    return found


def numbered(count):
    return [b"%05d %s" % (number, LINE) for number in range(count)]


def test_lines_go_out_at_once_and_keep_their_order_when_the_reader_stalls():
    with pipe() as (ours, theirs):
        output = LineOutput(theirs)
        output.put(LINE)
        assert os.read(ours, 1000) == LINE
        assert output._thread is None
        lines = numbered(500)
        for line in lines:
            output.put(line)
        assert output._waiting
        assert read_all(ours, output) == b"".join(lines)
        until(lambda: output._thread is None)


def test_what_does_not_fit_is_dropped_counted_and_told_once_it_flows_again():
    losses = Losses()
    with pipe() as (ours, theirs):
        output = LineOutput(theirs, most=20_000)
        output.count_in(losses, 2)
        began = time.monotonic()
        lines = numbered(5000)
        for line in lines:
            output.put(line)
        assert time.monotonic() - began < 5
        dropped = losses.dropped
        assert 4500 < dropped < 5000
        found = read_all(ours, output).splitlines(keepends=True)
        assert found == [*lines[: 5000 - dropped], b"%d lines were dropped\n" % dropped]
        assert losses.trouble().startswith("standard error does not take every line")
        output.put(LINE)
        assert os.read(ours, 1000) == LINE


def test_lines_that_wait_are_told_after_a_second_and_no_longer_when_they_are_gone():
    losses = Losses()
    with pipe() as (ours, theirs):
        output = LineOutput(theirs)
        output.count_in(losses, 0)
        for line in numbered(100):
            output.put(line)
        until(losses.trouble)
        assert losses.trouble() == "standard error is not read: lines wait, and 0 lines were dropped since the start"
        read_all(ours, output)
        assert losses.trouble() == ""


def test_the_shared_description_stays_as_it_is():
    for make in (os.pipe, pty.openpty):
        ours, theirs = make()
        LineOutput(theirs).put(b"a\n")
        assert os.get_blocking(theirs)
        assert os.read(ours, 1) == b"a"
        os.close(ours)
        os.close(theirs)


def test_lines_of_several_processes_are_never_torn():
    with pipe(1 << 16) as (ours, theirs):
        children = []
        for letter in b"abcd":
            children.append(os.fork())
            if not children[-1]:
                output = LineOutput(theirs)
                for _ in range(300):
                    output.put(bytes([letter]) * 1000 + b"\n")
                output.flush(20)
                os._exit(0)
        os.close(theirs)
        with open(ours, "rb", closefd=False) as file:
            lines = file.readlines()
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
    assert len(lines) == 1200
    assert all(len(line) == 1001 and len(set(line)) == 2 for line in lines)


def test_what_waits_in_a_parent_is_not_written_by_its_child_as_well():
    with pipe() as (ours, theirs):
        output = LineOutput(theirs)
        lines = numbered(200)
        for line in lines:
            output.put(line)
        child = os.fork()
        if not child:
            output.put(b"of the child\n")
            output.flush(20)
            os._exit(0)
        found = b""
        while found.count(b"\n") < 201:
            found += os.read(ours, 1 << 16)
        assert os.waitpid(child, 0)[1] == 0
    assert sorted(found.splitlines(keepends=True)) == sorted([*lines, b"of the child\n"])


def test_a_socket_that_is_not_read_holds_nobody_up():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output, lines = LineOutput(theirs.fileno()), numbered(20_000)
        for line in lines[:10_000]:
            output.put(line)
        assert theirs.getblocking()
        found = b""
        expected = b"".join(lines[: 10_000 - output._lost])
        while len(found) < len(expected):
            found += ours.recv(1 << 16)
        assert found[: len(expected)] == expected


def test_where_no_description_of_our_own_can_be_had_a_thread_waits(monkeypatch):
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *more: real("/nonexistent" if "/proc/self" in path else path, *more))
    with pipe() as (ours, theirs):
        output, lines = LineOutput(theirs), numbered(500)
        assert output._is_threaded
        for line in lines:
            output.put(line)
        output.flush(0.1)
        assert output._waiting
        assert read_all(ours, output) == b"".join(lines)


def test_a_reader_that_is_gone_and_a_full_disk_are_counted_and_told_when_all_is_well_again(monkeypatch, tmp_path):
    losses = Losses()
    with open(tmp_path / "log", "wb") as file:
        output = LineOutput(file.fileno())
        output.count_in(losses, 1)
        room = 150

        def write(data):
            nonlocal room
            if not room:
                raise OSError(28, "No space left on device")
            taken, room = min(room, len(data)), room - min(room, len(data))
            return os.write(file.fileno(), data[:taken])

        monkeypatch.setattr(output, "_write", write)
        for _ in range(4):
            output.put(LINE)
        assert losses.dropped == 3
        room = 1000
        output.put(LINE)
        output.put(LINE)
    assert (tmp_path / "log").read_bytes() == LINE + LINE[:50] + b"\n3 lines were dropped\n" + LINE + LINE
    closed = LineOutput(None)
    closed.count_in(losses, 2)
    closed.put(LINE)
    closed.flush()
    assert losses.dropped == 4


def test_lines_that_are_printed_in_parts_are_whole():
    with pipe() as (ours, theirs):
        stream = LineStream(LineOutput(theirs), False)
        print("a", "b", file=stream, flush=True)
        print("c\nd", end="", file=stream)
        assert os.read(ours, 100) == b"a b\nc\n"
        print("\u20ac \ud800", file=stream)
        assert os.read(ours, 100) == "d\u20ac \\ud800\n".encode()
        assert (stream.fileno(), stream.isatty(), stream.encoding) == (2, False, "utf-8")


@contextlib.contextmanager
def receiver(keys, folder, stderr, **more):
    """A receiver with two workers that says much, its addresses, and its process; ended by SIGTERM in time, with 0."""
    environ = environment_of(keys, folder, STORAGE_BIND="127.0.0.1:0", STORAGE_ADMIN_BIND="127.0.0.1:0", **more)
    command = [sys.executable, "-m", "receiver", "serve"]
    process = subprocess.Popen(
        command,
        env={"PYTHONPATH": os.getcwd(), "STORAGE_RUN_DIR": str(folder)} | environ,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        preexec_fn=None if stderr else lambda: os.close(2),  # noqa: PLW1509 - the child is about to start Python
    )
    with process:
        timer = threading.Timer(60, process.kill)
        timer.start()
        found = ""
        while not re.search(r"admin +\S", found):
            line = process.stdout.readline()
            assert line, "the receiver did not start"
            found += line
        timer.cancel()
        process.url = re.search(r"address +(\S+)", found)[1]
        process.admin = re.search(r"admin +(\S+)", found)[1]
        yield process
        if process.poll() is None:
            process.terminate()
        began = time.monotonic()
        assert process.wait(40) == 0
        assert time.monotonic() - began < 12


def saves(client, flow, count):
    for _ in range(count):
        flow.step()
        state = flow.state()
        del flow.entries[6:]
        flow.values.clear()
        answer = client.save(state)
        assert answer.status == 204
        assert answer.seconds < 10
    return state


def readiness(running) -> dict:
    status, told = AdminClient(running.admin).get_json("/readyz")
    assert status == 200
    return told["checks"]["log"]


@pytest.mark.case("I07")
@pytest.mark.parametrize("is_read_again", [True, False])
def test_standard_error_that_nobody_reads_holds_up_neither_requests_nor_the_end(
    keys, platform_at, flow, tmp_path, is_read_again
):
    with pipe() as (ours, theirs):
        fill(theirs)  # as the last receiver left it behind
        with receiver(keys, tmp_path, theirs) as running:
            client = platform_at(running.url)
            state = saves(client, flow, 200)
            assert loaded(client, state["id"]) == state["content"]
            found = until(lambda: (one := readiness(running))["verdict"] == "warn" and one)
            assert found["told"].startswith("standard error is not read: lines wait")
            os.set_blocking(ours, False)
            found = []

            def all_came():
                with contextlib.suppress(BlockingIOError):
                    found.append(os.read(ours, 1 << 20))
                return b"".join(found).count(b" POST ") == 200

            if is_read_again:
                until(all_came)
                until(lambda: readiness(running)["verdict"] == "ok")
            client.close()


@pytest.mark.case("I07")
def test_lines_are_dropped_counted_exported_and_told(keys, platform_at, flow, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import receiver.telemetry.log_output as one\none.LineOutput.__init__.__defaults__ = (8192,)\n"
    )
    with pipe() as (ours, theirs), receiver(keys, tmp_path, theirs, PYTHONPATH=f"{tmp_path}:{os.getcwd()}") as running:
        client = platform_at(running.url)
        saves(client, flow, 300)
        dropped = value(counted(running), "receiver_log_lines_dropped_total")
        assert dropped > 50
        assert f"{dropped:,.0f} lines were dropped since the start" in readiness(running)["told"]
        os.set_blocking(ours, False)
        found = []

        def is_told():
            with contextlib.suppress(BlockingIOError):
                found.append(os.read(ours, 1 << 20).decode())
            saves(client, flow, 1)
            return "dropped here: standard error was not read, full or closed" in "".join(found)

        until(is_told)
        client.close()
    assert re.search(r"^\S+Z WARNING [\d,]+ lines were dropped here", "".join(found), re.MULTILINE)


@pytest.mark.case("I07")
@pytest.mark.parametrize("kind", ["full", "broken", "closed"])
def test_standard_error_that_fails_changes_nothing_but_the_count(keys, platform_at, flow, tmp_path, kind):
    with pipe() as (ours, theirs), open("/dev/full", "w") as full:
        if kind == "broken":
            os.close(ours)
        stderr = {"full": full, "broken": theirs, "closed": None}[kind]
        with receiver(keys, tmp_path, stderr) as running:
            client = platform_at(running.url)
            state = saves(client, flow, 20)
            assert loaded(client, state["id"]) == state["content"]
            assert value(counted(running), "receiver_log_lines_dropped_total") >= 20
            assert readiness(running)["verdict"] == "warn"
            client.close()


@pytest.mark.case("I07")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGQUIT])
def test_other_ends_are_in_time_as_well(keys, platform_at, flow, tmp_path, sign):
    with pipe() as (_, theirs), receiver(keys, tmp_path, theirs) as running:
        saves(platform_at(running.url), flow, 100)
        running.send_signal(sign)


@pytest.mark.case("I07")
def test_standard_output_that_nobody_reads_does_not_hold_up_the_start(keys, tmp_path):
    with pipe() as (_, theirs), open(tmp_path / "log", "w") as log:
        fill(theirs)
        environ = environment_of(keys, tmp_path, STORAGE_BIND="127.0.0.1:0", PYTHONPATH=os.getcwd())
        command = [sys.executable, "-m", "receiver", "serve"]
        with subprocess.Popen(command, env=environ, stdout=theirs, stderr=log) as process:
            until(lambda: (tmp_path / "log").read_text().count("Booting worker") == 2, 60)
            process.terminate()
            assert process.wait(30) == 0


@pytest.mark.case("I07")
def test_a_start_that_is_refused_ends_too(tmp_path):
    with pipe() as (_, theirs):
        fill(theirs)
        environ = {"PATH": os.environ["PATH"], "STORAGE_KEYS": str(tmp_path), "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-m", "receiver", "serve"]
        assert subprocess.run(command, env=environ, stderr=theirs, timeout=60, check=False).returncode == 78


def test_a_file_of_the_store_never_gets_the_number_of_standard_error(tmp_path):
    program = (
        "from receiver.telemetry import logs, standard_error\nimport sys, os\nstandard_error.open_closed_files()\n"
        "standard_error.install()\nlogs.configure('info', 'auto')\n"
        f"store = open({str(tmp_path / 'store')!r}, 'w')\nlogs.log.info('hello')\nprint('hello', file=sys.stderr)\n"
        "print(store.fileno(), sys.stderr.output.number)\n"
    )
    command = 'exec "$0" -c "$1" 2>&-'
    ran = subprocess.run(
        ["sh", "-c", command, sys.executable, program], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    assert int(ran.stdout.split()[0]) > 2
    assert (tmp_path / "store").read_text() == ""
