"""The log: one event, one line, and nothing in it that must not be."""

import json
import logging
import os
import pty
import subprocess
import sys

import pytest

from receiver.app import create_app
from receiver.handover import Handover
from receiver.routes import ChangeRequest
from receiver.secret import Secret
from receiver.settings import Settings
from receiver.states import State
from receiver.telemetry import tracing
from receiver.telemetry.logs import JsonFormatter, LineFormatter, escape, is_json
from tests.support.serving import environment_of
from tests.support.states import TENANT, a_state


def formatted(message, *args, exc_info=None, form=LineFormatter, **extra) -> str:
    record = logging.LogRecord("receiver", logging.INFO, "x.py", 1, message, args, exc_info)
    record.__dict__.update(extra)
    return form().format(record)


def as_json(*args, **extra) -> dict:
    line = formatted(*args, form=JsonFormatter, **extra)
    assert line.isprintable() and line.isascii()
    return json.loads(line)


FORGERIES = ["a\nb", "a\r\nb", "a\u2028b", "a\x1b[31mb", "a\x00b", "a\ud800b", "a\u202eb"]


@pytest.mark.parametrize("text", FORGERIES)
def test_what_could_forge_or_hide_a_line_is_escaped(text):
    line = formatted("said %s", text, request="r\nq")
    assert line.isprintable() and line.isascii()
    assert line.count("\n") == 0


@pytest.mark.parametrize("text", [*FORGERIES, "a\x7fb", 'a","level":"critical'])
def test_json_is_one_line_whatever_it_holds(text):
    found = as_json("said %s", text, request="r", fields={"cause": text, "status": 401, "rooms": {"verify": 0.5}})
    assert (found["message"], found["cause"]) == (f"said {text}", text)
    assert (found["level"], found["logger"], found["request"], found["status"]) == ("info", "receiver", "r", 401)


def test_a_token_is_cut_short_in_json_as_well(platform, state):
    token = platform.headers("/x")["X-ManyWho-Signature"]
    found = as_json("header %s", token, fields={"path": token})
    for part in token.split("."):
        assert part not in json.dumps(found)
        assert part[:8] in found["message"] and part[:8] in found["path"]


def test_a_traceback_in_json_tells_where_and_never_what():
    content = "private matters"
    try:
        raise ValueError(content)
    except ValueError as failure:
        found = as_json("a defect", exc_info=(type(failure), failure, failure.__traceback__))
    assert found["trace"][-1] == "ValueError"
    assert any("test_logs.py" in line for line in found["trace"])
    assert "private" not in json.dumps(found)


def test_a_request_is_told_by_its_fields(platform, state, caplog):
    caplog.set_level(logging.INFO)
    assert platform.save(state).status == 204
    assert platform.call("GET", "/api/storage/1/states/x/y", headers={}).status == 401
    saved, refused = (json.loads(JsonFormatter().format(record)) for record in caplog.records)
    assert (saved["message"], saved["call"], saved["tenant"]) == ("save 204", "save", platform.tenant)
    assert (saved["method"], saved["status"], saved["stored"], saved["jti"]) == ("POST", 204, 1, "new")
    assert set(saved["rooms"]) == {"verify", "body", "open", "store"}
    assert 0 < sum(saved["rooms"].values()) <= saved["ms"] + 0.3
    assert (refused["tenant"], refused["reason"], refused["cause"]) == (None, "missing", "signature: missing")


def test_automatic_is_text_on_a_terminal_and_json_elsewhere():
    assert (is_json("json"), is_json("text")) == (True, False)
    program = "from receiver.telemetry import logs; logs.configure('info', 'auto'); logs.log.info('hello')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(ran.stderr)["message"] == "hello"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stderr=theirs, timeout=30, check=True)
    os.close(theirs)
    assert os.read(ours, 1000).decode().rstrip().endswith(" INFO    hello")
    os.close(ours)


def test_all_that_a_service_says_in_json_is_json(keys, platform_at, state, tmp_path):
    """gunicorn's lines, the one that takes the banner's place, and what is refused before the application sees it."""
    environ = environment_of(keys, tmp_path, STORAGE_BIND="127.0.0.1:0", STORAGE_LOG_FORMAT="auto")
    command = [sys.executable, "-m", "receiver", "serve"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        said = []
        while not said or said[-1]["message"] != "listening":
            said.append(json.loads(process.stderr.readline()))
        (url,) = said[-1]["addresses"]
        assert said[-1]["admin"] is None
        client = platform_at(url)
        assert client.save(state).status == 204
        assert client.call("GET", "/x", headers={f"X-{number}": "1" for number in range(101)}).status == 431
        process.terminate()
        out, err = process.communicate(timeout=60)
    said += [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert {"gunicorn.error", "receiver"} == {one["logger"] for one in said}
    assert [one["status"] for one in said if one["message"] == "save 204"] == [204]
    messages = {one["message"] for one in said}
    assert "Shutting down: Master" in messages
    assert any(
        one.startswith("refused: LimitRequestHeaders: ") and one.endswith(", from 127.0.0.1") for one in messages
    )


def test_a_request_id_is_taken_from_a_trusted_proxy_and_from_nobody_else(ring, store):
    trusting = create_app(Settings(trusted_proxies=("127.0.0.1/32",)), ring, store).test_client()
    nobody = create_app(Settings(), ring, store).test_client()
    for offered in ("0123456789abcdef", "7F000001:AB12_7F000001:1F90_5C3_0F:22", "a-b.c/d+e=f@g"):
        headers = {"X-Request-ID": offered}
        assert trusting.get("/api/storage/1/health", headers=headers).headers["X-Request-ID"] == offered
        assert nobody.get("/api/storage/1/health", headers=headers).headers["X-Request-ID"] != offered
    for offered in ("", "a b", "x" * 64, "a\u00e9", 'a"b', "a\tb"):
        made = trusting.get("/api/storage/1/health", headers={"X-Request-ID": offered}).headers["X-Request-ID"]
        assert len(made) == 32 and made != offered


def test_ids_that_are_made_never_repeat_and_times_of_a_room_add_up():
    assert len({tracing.begin(None).request_id for _ in range(1000)}) == 1000
    trace = tracing.begin("x")
    for _ in range(2):
        with trace.stage("store"):
            pass
    once = trace.stages["store"]
    with trace.stage("store"):
        pass
    assert trace.stages["store"] > once > 0


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
    program = f"from receiver.telemetry import logs; logs.configure({level!r})\nraise ValueError('private matters') from OSError('x')"
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
    assert "private" not in repr(ChangeRequest(TENANT, Handover(b"private matters"), 15, None, 0.0))
