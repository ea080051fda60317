"""The log: one event, one line, and nothing in it that must not be."""

import logging
import subprocess
import sys

import pytest

from receiver.app import create_app
from receiver.logs import LineFormatter, escape
from receiver.routes import Change
from receiver.secret import Secret
from receiver.settings import Settings
from receiver.states import State
from tests.test_stores import TENANT, a_state


def formatted(message, *args, exc_info=None, **extra) -> str:
    record = logging.LogRecord("receiver", logging.INFO, "x.py", 1, message, args, exc_info)
    record.__dict__.update(extra)
    return LineFormatter().format(record)


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "a\x1b[31mb", "a\x00b", "a\ud800b", "a\u202eb"])
def test_what_could_forge_or_hide_a_line_is_escaped(text):
    line = formatted("said %s", text, request="r\nq")
    assert line.isprintable() and line.isascii()
    assert line.count("\n") == 0


def test_a_token_is_cut_short_wherever_it_stands(platform, state):
    path = f"/api/storage/1/states/{platform.tenant}/{state['id']}"
    token = platform.headers(path)["X-ManyWho-Signature"]
    line = formatted("Invalid header: %r", f"X-ManyWho-Signature: {token}")
    for part in token.split("."):
        assert part not in line
        assert part[:8] in line
    assert path in formatted(path)
    assert platform.keys.receiver.jwk.thumbprint() in formatted(platform.keys.receiver.jwk.thumbprint())


def test_a_proxy_that_is_trusted_names_the_client_in_the_log(ring, store, keys, tenant, caplog):
    for trusted, address in (((), "127.0.0.1"), (("127.0.0.1/32",), "192.0.2.9")):
        caplog.clear()
        caplog.set_level(logging.INFO)
        served = create_app(Settings(trusted_proxies=trusted), ring, store).test_client()
        served.get("/api/storage/1/health", headers={"X-Forwarded-For": "192.0.2.9"})
        (record,) = [record for record in caplog.records if "/health" in record.getMessage()]
        assert record.getMessage().startswith(f"{address} GET ")


def test_a_traceback_tells_where_and_never_what():
    try:
        raise ValueError("the content\n2026-01-01T00:00:00.000Z ERROR forged")
    except ValueError as failure:
        text = formatted("a defect", exc_info=(type(failure), failure, failure.__traceback__))
    first, *rest = text.splitlines()
    assert first.endswith("a defect")
    assert all(line.startswith("    | ") for line in rest)
    assert "test_logs.py" in text and "ValueError" in text
    assert "forged" not in rest[-1]


def test_a_state_does_not_show_its_content():
    state = a_state(content="private matters")
    assert isinstance(state, State)
    assert "private matters" not in repr(state)


def test_escape_leaves_plain_text_alone():
    assert escape("GET /api/storage/1/health 200") == "GET /api/storage/1/health 200"


def test_a_defect_is_logged_with_the_id_that_the_caller_got(platform, state, monkeypatch, caplog):
    def defect(*_args):
        raise RuntimeError("a secret of the defect")

    monkeypatch.setattr("receiver.envelope.open_states", defect)
    answer = platform.save(state)
    assert answer.status == 500
    assert b"secret" not in answer.body
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.request == answer.headers["x-request-id"]


@pytest.mark.parametrize("level", ["debug", "error"])
def test_what_nobody_catches_is_told_by_kind_and_place_only(level):
    program = (
        f"from receiver import logs; logs.configure({level!r})\nraise ValueError('private matters') from OSError('x')"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    event, *trace = ran.stderr.splitlines()
    assert (ran.returncode, ran.stdout) == (1, "")
    assert event.endswith(" CRITICAL ended by an exception")
    assert (trace[0].startswith("    | "), trace[-1]) == (True, "    | ValueError")
    assert "private matters" not in ran.stderr


def test_a_secret_gives_itself_out_only_when_it_is_asked_to():
    secret = Secret("private matters")
    told = [str(secret), repr(secret), f"{secret}", repr([secret]), repr({"key": secret})]
    assert "private" not in " ".join(told)
    assert (secret.text, bool(secret), bool(Secret()), str(Secret())) == ("private matters", True, False, "")
    with pytest.raises(TypeError):
        f"{secret:>20}"
    for value in (Settings(key_passphrase=secret, sealing_key=secret, key_texts={"RECEIVER_KEY": secret}), secret):
        assert "private" not in formatted("%s %r", value, value)


def test_a_change_does_not_show_its_body():
    assert "private" not in repr(Change(TENANT, b"private matters", None, 0.0))
