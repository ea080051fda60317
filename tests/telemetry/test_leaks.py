"""Protocol, section 10.7, on the whole service at its most talkative: whoever reads what it prints finds nothing of it."""

import base64
import contextlib
import json
import re
import socket
import uuid
from functools import partial
from urllib.parse import quote, urlsplit

import pytest
from sqlite_utils.utils import sqlite3

from receiver.keys import passphrase
from receiver.mock_platform import forging, tokens
from receiver.mock_platform.forging import unb64
from tests.support.servers import needed
from tests.support.serving import serving
from tests.support.waiting import pass_time

pytestmark = pytest.mark.slow

PHRASE = "Passphrase-needle-5f1c9e7a"
CONTENT = "Content-needle-8d2b6f04c3"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) +\S.*|    \| .*")


def shapes_of(secret: str | bytes) -> set[str]:
    """Return ``secret`` as a log could hold it: raw, escaped, in hex, in both kinds of base64 at each alignment."""
    raw = secret if isinstance(secret, bytes) else secret.encode()
    found = {
        raw.hex(),
        raw.hex().upper(),
        quote(raw),
        raw.decode("latin-1"),
        repr(raw)[2:-1],
        raw.decode("latin-1")[::-1],
    }
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode().rstrip("=")
        whole = text[-(-4 * before // 3) + (before > 0) : -1]  # without what its neighbours have a share in
        found |= {whole, whole.replace("+", "-").replace("/", "_")}
    return {shape for shape in found if len(shape) > 12}


def assert_nothing_of(secrets, printed: str) -> None:
    for name, secret in secrets.items():
        for shape in shapes_of(secret):
            assert shape not in printed, (
                name,
                printed[max(0, printed.index(shape) - 300) : printed.index(shape) + 100],
            )


def assert_no_token(sent, printed: str) -> None:
    """Assert that of each part of a token at most its first sign is there, eight letters: one knows it again by them."""
    for token in sent:
        for part in token.split("."):
            assert len(part) < 40 or part[8:32] not in printed, part[:60]


def lines_of(folder) -> list[str]:
    """Return the lines of the log in ``folder``: each an event, or a line of a traceback behind its bar."""
    lines = (folder / "log").read_text().splitlines()
    for line in lines:
        assert LINE.fullmatch(line) or {"time", "level", "logger", "message"} <= json.loads(line).keys(), line
        assert line.isascii() and line.isprintable(), line
    return lines


class Talk:
    """What is said to a receiver: every kind of request, and what is no request."""

    def __init__(self, url, client, keys, state):
        self.url, self.client, self.keys, self.state = urlsplit(url), client, keys, state
        self.path = f"/api/storage/1/states/{client.tenant}"
        self.tokens = [tokens.seal_state(state, keys)]
        self.statuses = set()

    def call(self, method, body=None, path=None, headers=None, **claims):
        path = path or self.path
        headers = headers or self.client.headers(path, **claims)
        self.tokens.append(headers["X-ManyWho-Signature"])
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        with contextlib.suppress(OSError):
            self.statuses.add(self.client.call(method, path, body, headers).status)

    def every_call(self):
        one = f"{self.path}/{self.state['id']}"
        body = [{"token": self.tokens[0]}]
        headers = self.client.headers(self.path)
        for _ in range(2):
            self.call("POST", body, headers=headers)
        self.call("DELETE", [self.state["id"]], headers=headers)
        self.call("GET", path=one)
        self.call("DELETE", [str(uuid.uuid4())])

    def refused_signatures(self):
        good = self.client.headers(self.path)
        signature = good["X-ManyWho-Signature"]
        for bad in (signature[:-10], signature + "\u00e9", signature.replace(".", ".."), self.tokens[0], CONTENT):
            self.call("GET", path=f"{self.path}/{self.state['id']}", headers=good | {"X-ManyWho-Signature": bad})
        for claims in (
            {"exp": CONTENT},
            {"aud": CONTENT},
            {"iss": CONTENT},
            {"path": CONTENT},
            {CONTENT: 1},
            {"jti": 7},
        ):
            self.call("POST", [], **claims)

    def refused_bodies(self):
        sealed = self.tokens[0]
        claims = tokens.state_claims(self.state)
        mistaken = [
            *({name: CONTENT} for name in ("updatedAt", "id", "isDone", "exp", "aud", "flow", "tenant")),
            *({"content": {CONTENT: CONTENT}}, {CONTENT: CONTENT, "sub": CONTENT}, {"expiresAt": [CONTENT]}),
        ]
        made = [tokens.seal(tokens.sign(claims | more, self.keys.platform), self.keys.receiver) for more in mistaken]
        made += [sealed[:-6] + "AAAAAA", tokens.sign(claims, self.keys.platform), sealed.replace(".", "", 1), CONTENT]
        made += [
            tokens.seal(json.dumps(claims), self.keys.receiver),
            forging.with_header(sealed, apu=CONTENT, crit=[CONTENT]),
        ]
        made += [tokens.seal(CONTENT * 1000, self.keys.receiver, cty="JWT")]
        self.tokens += made
        for token in made:
            self.call("POST", [{"token": token}])
        self.call("POST", f'[{{"token": "{CONTENT}"'.encode())
        self.call("POST", {CONTENT: CONTENT})
        self.call("POST", [{CONTENT: CONTENT}, [CONTENT], CONTENT])
        self.call("DELETE", [CONTENT])
        self.call("PATCH", [CONTENT])

    def no_requests(self):
        token = self.client.headers(self.path)["X-ManyWho-Signature"]
        self.tokens.append(token)
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\n"
        signed = "".join(f"{name}: {value}\r\n" for name, value in self.client.headers(self.path).items())
        for text in (
            f"{token} / HTTP/1.1\r\n\r\n",
            f"GET /{token}?{token} HTTP/1.1\r\nHost: {token}\r\n\r\n",
            "GET /\x1b[31m\u202e HTTP/1.1\r\n\r\n",
            f"GET / {token}\r\n\r\n",
            f"{head}{token}: 1\r\n\r\n",
            f"{head}{token}\r\n\r\n",
            f"{head}X-ManyWho-Signature : {token}\r\n\r\n",
            f"{head}X_ManyWho_Signature: {token}\r\n\r\n",
            f"{head}X-ManyWho-Signature: {token * 30}\r\n\r\n",
            f"{head}X-ManyWho-Signature: a\r\n {token}\r\n\r\n",
            f"{head}Content-Length: {token}\r\n\r\n",
            f"{head}Transfer-Encoding: {token}\r\n\r\n",
            f"{head}Expect: {token}\r\n\r\n",
            f"{head}X-Forwarded-For: {token}\r\n\r\n",
            f"{head}{signed}Content-Type: application/{CONTENT}\r\nContent-Length: 2\r\n\r\n[]",
            f"{head}{signed}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{CONTENT}\r\n",
            f"{head}{signed}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5;{CONTENT}\r\n{CONTENT}\r\n",
            f"{head}{signed}Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n[{CONTENT}",
        ):
            self.raw(text)

    def raw(self, text):
        address = self.url.hostname, self.url.port
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=5) as connection:
            connection.sendall(text.encode("utf-8"))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


def secrets_of(keys, password=""):
    """Return what must not be printed, by what it is."""
    private = keys.receiver.private()["d"]
    found = {"content": CONTENT, "passphrase": PHRASE, "d": private, "d as bytes": unb64(private)}
    return found | {"d of the platform": keys.platform.private()["d"]} | ({"password": password} if password else {})


@contextlib.contextmanager
def talkative(keys, folder, **environment):
    """Run a receiver that says all it can say; yields it and a list that gets, at the end, what it has said."""
    more = {
        "STORAGE_LOG_LEVEL": "debug",
        "PYTHONDEVMODE": "1",
        "PYTHONWARNINGS": "always",
        "PLATFORM_KEY": json.dumps(keys.platform.private()),  # which is more than it should be given
        "RECEIVER_KEY": passphrase.protect(json.dumps(keys.receiver.private()), PHRASE),
        "STORAGE_KEY_PASSPHRASE": PHRASE,
        "STORAGE_STORE_TIMEOUT": "2",
    }
    printed = []
    with serving(keys, folder, **more, **environment) as running:
        yield running, printed
        running.process.terminate()
        printed.append(running.process.stdout.read())
    printed.append((folder / "log").read_text())


@pytest.fixture
def marked(state):
    """A state whose content one knows again anywhere, and that would forge a line and hide another."""
    text = f"{CONTENT}\n2026-01-01T00:00:00.000Z ERROR   forged \x1b[2K\u202e\u2028"
    return state | {"content": json.dumps({"a": text, "b": text}, ensure_ascii=False) + text}


# What makes a server quote what it refuses, and its end: a trigger of somebody's, and a constraint.
QUOTING = {
    "postgresql": [
        (
            "create function quote_it() returns trigger language plpgsql as $$ begin "
            "raise exception 'refused: %', new.content using detail = new.content, hint = new.content; end $$;"
            "create trigger quoting before insert on states for each row execute function quote_it()",
            "drop trigger quoting on states",
        ),
        (
            "alter table states add constraint c check (length(content) < 3) not valid",
            "alter table states drop constraint c",
        ),
    ],
    "mariadb": [
        (
            "create trigger quoting before insert on states for each row begin declare said text; "
            "set said = left(new.content, 100); signal sqlstate '45000' set message_text = said; end",
            "drop trigger quoting",
        ),
        (
            "alter table states add constraint c check (length(content) < 3 or tenant_id = id)",
            "alter table states drop constraint c",
        ),
    ],
}


@pytest.mark.parametrize(
    ("kind", "program"),
    [
        ("sqlite", "receiver"),
        ("sqlite", "tests.support.json_receiver"),
        ("file", "receiver"),
        ("postgresql", "tests.support.json_receiver"),
        ("mariadb", "receiver"),
    ],
)
def test_at_debug_and_with_every_kind_of_request_and_fault_nothing_is_told(
    kind, program, request, keys, platform_at, marked, tmp_path
):
    server = None
    url = {"sqlite": f"sqlite:///{tmp_path}/states.db", "file": f"file://{tmp_path}/states"}.get(kind)
    if url is None:
        if kind == "mariadb":
            needed("mariadbd", "mariadb-install-db")
        server = request.getfixturevalue(kind)
        database = server.new_database()
        url = server.url(database)
    with talkative(keys, tmp_path, program=(program,), DATABASE_URL=url) as (running, printed):
        talk = Talk(running.url, platform_at(running.url), keys, marked)
        talk.every_call()
        if kind == "sqlite":  # what is refused does not come as far as the store
            talk.refused_signatures()
            talk.refused_bodies()
            talk.no_requests()
        if kind == "sqlite":
            execute = partial(rewrite, tmp_path / "states.db")
        else:
            execute = server and (lambda sql: server.execute(sql, database))
        damage(kind, tmp_path, execute, talk)
    assert talk.statuses >= {200, 204, 401, 500, 503} | ({400, 405} if kind == "sqlite" else set())
    printed = "".join(printed)
    assert "forged" not in printed
    assert_nothing_of(secrets_of(keys, server.password if server else ""), printed)
    assert_no_token(talk.tokens, printed)
    assert len(lines_of(tmp_path)) > 10


def rewrite(path, sql):
    """Run ``sql`` on the SQLite file at ``path``; by the library that the receiver has: two undo each other's locks."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def damage(kind, folder, execute, talk):
    """Let the store quote what it refuses, lose a content's byte, and go."""
    id = talk.state["id"]
    for made, undone in QUOTING.get(kind, []):
        talk.call("DELETE", [id])
        execute(made)
        talk.call("POST", [{"token": tokens.seal_state(talk.state, talk.keys)}])
        execute(undone)
    talk.call("POST", [{"token": tokens.seal_state(talk.state, talk.keys)}])
    if execute:
        execute("update states set content = replace(content, 'a', 'b')")
        talk.call("GET", path=f"{talk.path}/{id}")
        execute("alter table states rename to elsewhere")
    else:
        (file,) = [one for one in (folder / "states").rglob("*") if one.is_file() and id in one.name]
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        talk.call("GET", path=f"{talk.path}/{id}")
        (folder / "states").rename(folder / "elsewhere")
    talk.call("GET", path=f"{talk.path}/{id}")
    talk.call("POST", [{"token": tokens.seal_state(talk.state, talk.keys)}])


def test_code_that_is_careless_with_what_it_holds_prints_none_of_it(keys, platform_at, marked, tmp_path):
    with talkative(keys, tmp_path, program=("tests.support.leaking_receiver",)) as (running, printed):
        client = platform_at(running.url)
        assert client.save(marked).status == 204
        assert client.load(marked["id"]).status == 500
        pass_time(0.2, "what is printed late is printed")
    printed = "".join(printed)
    assert_nothing_of(secrets_of(keys), printed)
    log = lines_of(tmp_path)
    assert not any("forged" in line for line in log)
    told = "\n".join(log)
    for expected in (
        "content of ",
        "a line of the log could not be written",
        "RuntimeWarning at ",
        "a thread ended",
        "an exception that nobody could handle",
        "a defect",
    ):
        assert expected in told, told
