"""What comes from outside is shown on a terminal, and never obeyed by it."""

import contextlib
import json
import os
import pty
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import uuid

import pytest

from receiver.conformance.printable import visible, visible_lines
from receiver.mock_platform.keys import new_store
from receiver.stores import open_store
from tests.support.commands import receiver
from tests.support.key_files import put
from tests.support.states import TENANT, a_state, uid

pytestmark = pytest.mark.slow

TITLE = "\x1b]0;owned\x07"  # sets a terminal's title
HOSTILE = f"{TITLE}\x1b[31mred\x1b[8m\x9b2Jgone\r\u202e\x7f"
OWN = re.compile(r"\x1b\[(?:\d{1,2}m|\d{1,3}A|2K)")  # colours, and how the table is drawn anew


def on_terminal(*words, cwd=None, **environ):
    """Run a command with a terminal as its standard output and error; returns what the terminal was sent."""
    ours, theirs = pty.openpty()
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), "TERM": "xterm", "COLUMNS": "200"} | environ
    command = [sys.executable, "-m", "receiver", *words]
    process = subprocess.Popen(command, env=clean, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    sent = b""
    with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
        while more := os.read(ours, 1 << 16):
            sent += more
    os.close(ours)
    process.wait(60)
    return sent.decode("utf-8", "surrogateescape")


def assert_harmless(text, own=OWN):
    """Check that ``text`` holds nothing that a terminal obeys, but for ``own``."""
    left = own.sub("", text).replace("\r\n", "\n").replace("\n", "") if own else text.replace("\n", "")
    assert "".join(c for c in left if not c.isprintable()) == "", [
        left[max(0, at - 40) : at + 20] for at, c in enumerate(left) if not c.isprintable()
    ][:5]


@contextlib.contextmanager
def answering(head, body):
    """Serve ``head`` and ``body`` to every request on a port of its own; yields the URL."""
    reply = head.encode("latin-1") + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def serve(connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while request := lines.readline():
                size = 0
                while (line := lines.readline()) not in (b"\r\n", b""):
                    size = int(line.split(b":")[1]) if line.lower().startswith(b"content-length:") else size
                lines.read(size)
                connection.sendall(reply if request.startswith((b"GET", b"POST", b"DELETE")) else b"")

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


PROBLEM = json.dumps({"kind": "service", "statusCode": 400, "message": HOSTILE, "uri": f"/api/storage/1/{HOSTILE}"})
HEADERS = f"HTTP/1.1 400 {TITLE}\r\nServer: {HOSTILE[:-3]}\r\nX-ManyWho-Service-Problem-Kind: service"
SERVERS = {
    "problem": (HEADERS, PROBLEM.encode()),
    "raw": (HEADERS, HOSTILE.encode()),
    "well": (HEADERS.replace("400", "200"), json.dumps({"token": HOSTILE}).encode()),
    "none": (f"{HOSTILE[:-3]}", b""),
}
SERVERS = {name: (head.replace("\r\u202e", "").replace("\rX", "X"), body) for name, (head, body) in SERVERS.items()}


@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "keys", made := new_store())
    path = tmp_path / "keys" / f"mock-platform-{made.platform.kid}.json"
    path.write_text(json.dumps(made.platform.private()))
    path.chmod(0o600)
    return tmp_path


@pytest.mark.parametrize("name", SERVERS)
def test_conformance_shows_what_a_foreign_server_sends(folder, name):
    with answering(*SERVERS[name]) as url:
        words = ("conformance", "--url", url, "--keys", str(folder / "keys"), "--only", "http", "--only", "load")
        files = [f"--{kind}={folder}/report.{kind}" for kind in ("json", "junit", "html")]
        text = on_terminal(*words, *files, cwd=folder)
        piped = receiver(*words, cwd=folder)
    assert_harmless(text)
    assert_harmless(piped.stdout + piped.stderr, own=None)
    assert name != "none" or r"\x1b]0;owned\x07\x1b[31mred" in text
    for kind in ("json", "junit", "html"):
        if (folder / f"report.{kind}").exists():
            assert_harmless((folder / f"report.{kind}").read_text().replace("\t", ""), own=None)


@pytest.mark.parametrize("name", SERVERS)
def test_the_doctor_shows_what_a_foreign_server_sends(folder, name):
    environ = {"STORAGE_KEYS": str(folder / "keys"), "DATABASE_URL": f"sqlite:///{folder}/states.db"}
    with answering(*SERVERS[name]) as url:
        text = on_terminal("doctor", "--url", url, cwd=folder, STORAGE_RUN_DIR=str(folder), **environ)
        piped = receiver("doctor", "--json", "--url", url, cwd=folder, STORAGE_RUN_DIR=str(folder), **environ)
    assert "proxy" in text
    assert_harmless(text)
    assert_harmless(piped.stdout, own=None)


def test_health_shows_what_answers(folder):
    checks = {f"a{TITLE}": {"verdict": f"fail{HOSTILE}", "told": HOSTILE}}
    body = json.dumps({"status": f"ready{HOSTILE}", "checks": checks}).encode()
    with answering("HTTP/1.1 200 OK", body) as url:
        text = on_terminal("health", cwd=folder, STORAGE_ADMIN_BIND=url.removeprefix("http://"))
    assert r"ready\x1b]0;owned\x07" in text
    assert_harmless(text)


@pytest.fixture
def stored(folder):
    """A store with a state whose content is HOSTILE, and the variables for it."""
    store = open_store(f"sqlite:///{folder}/states.db", 5)
    store.prepare()
    store.save(TENANT, [a_state(10, content=HOSTILE + "é")], None)
    store.close()
    return {"DATABASE_URL": f"sqlite:///{folder}/states.db", "STORAGE_CLEAR_STATES": "read"}


def test_a_content_is_shown_on_a_terminal_and_piped_as_it_is(folder, stored):
    words = ("store", "show", TENANT, uid(10), "--content")
    text = on_terminal(*words, cwd=folder, **stored)
    assert visible(HOSTILE + "é") in text
    assert_harmless(text)
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **stored}
    for more in ({}, {"PYTHONIOENCODING": "ascii"}):
        command = [sys.executable, "-m", "receiver", *words]
        ran = subprocess.run(command, env=clean | more, cwd=folder, capture_output=True, check=True)
        assert ran.stdout.endswith(b"\n\n" + (HOSTILE + "é").encode() + b"\n")


@pytest.mark.parametrize("words", [("list", TENANT), ("stats",), ("residency",), ("list", TENANT, "--json")])
def test_what_a_database_holds_is_shown(folder, stored, words):
    with sqlite3.connect(folder / "states.db") as connection:
        connection.execute("update states set id = ?", [f"{uid(10)}\n{HOSTILE}"])
        if words[0] != "list":
            connection.execute("update states set tenant = ?", [f"{TENANT}{HOSTILE}"])
    connection.close()
    for ran in (
        on_terminal("store", *words, cwd=folder, **stored),
        receiver("store", *words, cwd=folder, **stored).stdout,
    ):
        assert "owned" in ran
        assert_harmless(ran)
        assert TITLE not in ran and f"{uid(10)}\n" not in ran.replace("\r", "")


def test_names_of_files_and_what_a_command_was_given_are_shown(folder):
    strange = folder / f"k{TITLE}\x1b[31m"
    (folder / "keys").rename(strange)
    environ = {
        "STORAGE_KEY_PASSPHRASE": "correct horse",
        "STORAGE_KEYS": str(strange),
        "DATABASE_URL": f"sqlite:///{folder}/states.db",
    }
    for words in (
        ("keys", "list"),
        ("keys", "check"),
        ("keys", "protect", str(folder / f"none{TITLE}")),
        ("keys", "generate", "--directory", str(folder / f"new{TITLE}")),
        ("config",),
        ("conformance", "--url", "http://127.0.0.1:1", "--keys", str(strange / "no")),
        ("platform", "serve", "--keys", str(strange / TITLE)),
        ("nonsense\x1b]0;owned\x07",),
    ):
        text = on_terminal(*words, cwd=folder, **environ)
        assert r"\x1b]0;owned\x07" in text
        assert_harmless(text)


def test_letters_of_any_language_stay():
    text = f"größe … ☃ {uuid.uuid4()}"
    assert visible(text) == text
    assert visible_lines(f"{text}\n\x1b") == f"{text}\n\\x1b"
    assert visible("a\nb\t\x9b\udc80") == r"a\nb\t\x9b\udc80"
