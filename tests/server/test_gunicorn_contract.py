"""gunicorn still has every internal that receiver/server uses. After an upgrade, read this test's failures first.

The tables below name the internals. They are complete: a test reads receiver/server and compares. Nothing of the
receiver is imported here, so that a name that gunicorn has dropped is reported as such, and not as an ImportError.
"""

import ast
import contextlib
import importlib
import inspect
import logging
import os
import socket
from collections.abc import Iterator
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from tests.support.paths import ROOT

SERVER = ROOT / "receiver/server"

# What is imported, or used of an imported module → its signature, None for a class or a value.
NAMES = {
    "gunicorn.app.base.BaseApplication": None,
    "gunicorn.arbiter.Arbiter": None,
    "gunicorn.config.Config": None,
    "gunicorn.errors.HaltServer": "(reason, exit_status=1)",
    "gunicorn.glogging.Logger": None,
    "gunicorn.http.Request": None,
    "gunicorn.http.RequestParser": None,
    "gunicorn.http.errors.ExpectationFailed": None,
    "gunicorn.http.errors.InvalidHeader": None,
    "gunicorn.http.errors.LimitRequestHeaders": None,
    "gunicorn.http.errors.LimitRequestLine": None,
    "gunicorn.http.errors.NoMoreData": None,
    "gunicorn.http.errors.ParseException": None,
    "gunicorn.http.errors.UnsupportedTransferCoding": None,
    "gunicorn.http.get_parser": "(cfg, source, source_addr, http2_connection=False)",
    "gunicorn.http.unreader.SocketUnreader": None,
    "gunicorn.sock.BaseSocket": None,
    "gunicorn.sock.TCP6Socket": "(address, conf, log, fd=None)",
    "gunicorn.sock.TCPSocket": "(address, conf, log, fd=None)",
    "gunicorn.sock.UnixSocket": "(addr, conf, log, fd=None)",
    "gunicorn.sock.close_sockets": "(listeners, unlink=True)",
    "gunicorn.sock.ssl_context": "(conf)",
    "gunicorn.systemd.listen_fds": "(unset_environment=True)",
    "gunicorn.systemd.sd_notify": "(state, logger, unset_environment=False)",
    "gunicorn.util._setproctitle": "(title)",
    "gunicorn.util.close": "(sock)",
    "gunicorn.workers.gthread.PollableMethodQueue": None,
    "gunicorn.workers.gthread.STOP_KEEPALIVE_LINGER": None,
    "gunicorn.workers.gthread.TConn": None,
    "gunicorn.workers.gthread.ThreadWorker": None,
}
# The methods of gunicorn's classes that are overridden or called → their signatures.
METHODS = {
    "gunicorn.app.base.BaseApplication": {
        "__init__": "(self, usage=None, prog=None)",
        "load": "(self)",
        "load_config": "(self)",
        "run": "(self)",
    },
    "gunicorn.arbiter.Arbiter": {
        "__init__": "(self, app)",
        "handle_hup": "(self)",
        "handle_term": "(self)",
        "handle_usr2": "(self)",
        "kill_workers": "(self, sig)",
        "manage_workers": "(self)",
        "murder_workers": "(self)",
        "reap_workers": "(self)",
        "spawn_worker": "(self)",
        "spawn_workers": "(self)",
        "start": "(self)",
        "stop": "(self, graceful=True)",
        "wait_for_signals": "(self, timeout=1.0)",
    },
    "gunicorn.glogging.Logger": {"setup": "(self, cfg)"},
    "gunicorn.http.unreader.SocketUnreader": {
        "__init__": "(self, sock, max_chunk=8192)",
        "chunk": "(self, size_hint=None)",
    },
    "gunicorn.workers.gthread.PollableMethodQueue": {"close": "(self)"},
    "gunicorn.workers.gthread.TConn": {
        "__init__": "(self, cfg, sock, client, server)",
        "close": "(self, graceful=False)",
        "init": "(self)",
        "wait_for_data": "(self, timeout)",
    },
    "gunicorn.workers.gthread.ThreadWorker": {
        "__init__": "(self, *args, **kwargs)",
        "_cap_keepalive": "(self, deadline)",
        "accept": "(self, listener)",
        "enqueue_req": "(self, conn)",
        "get_thread_pool": "(self)",
        "handle": "(self, conn)",
        "handle_abort": "(self, sig, frame)",
        "handle_error": "(self, req, client, addr, exc)",
        "handle_quit": "(self, sig, frame)",
        "handle_request": "(self, req, conn)",
        "init_signals": "(self)",
        "load_wsgi": "(self)",
        "murder_pending": "(self)",
        "on_client_socket_readable": "(self, conn, client)",
        "run": "(self)",
        "set_accept_enabled": "(self, enabled)",
        "wait_for_and_dispatch_events": "(self, timeout)",
    },
}
# Methods that are used through an object and not through self or super.
INDIRECT = {
    "gunicorn.config.Config": {"set": "(self, name, value)"},
    "gunicorn.http.unreader.SocketUnreader": {"take_buffered": "(self)", "unread": "(self, data)"},
    "gunicorn.http.wsgi.Response": {
        "force_close": "(self)",
        "start_response": "(self, status, headers, exc_info=None)",
    },
    "gunicorn.workers.base.Worker": {
        "__init__": "(self, age, ppid, sockets, app, timeout, cfg, log)",
        "init_process": "(self)",
    },
    "gunicorn.workers.gthread.PollableMethodQueue": {"defer": "(self, callback, *args)"},
    "gunicorn.workers.gthread.TConn": {"set_timeout": "(self)"},
    "gunicorn.workers.workertmp.WorkerTmp": {"close": "(self)", "last_update": "(self)"},
}


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The attributes that are read or written on self.
ATTRIBUTES = {
    "gunicorn.app.base.BaseApplication": words("cfg"),
    "gunicorn.arbiter.Arbiter": words("LISTENERS SIGNALS WORKERS app cfg log num_workers pid proc_name timeout"),
    "gunicorn.glogging.Logger": words("error_log"),
    "gunicorn.http.unreader.SocketUnreader": words("buf sock"),
    "gunicorn.workers.gthread.PollableMethodQueue": words(""),
    "gunicorn.workers.gthread.TConn": words("cfg client initialized parser server sock timeout"),
    "gunicorn.workers.gthread.ThreadWorker": words(
        "alive app booted cfg keepalived_conns log method_queue nr_conns pending_conns pid poller sockets tmp tpool wsgi"
    ),
}
# The methods of gunicorn that must go on calling what is overridden: (class, caller) → the names.
CALLS = {
    ("gunicorn.app.base.BaseApplication", "do_load_config"): words("load_config"),
    ("gunicorn.app.base.BaseApplication", "wsgi"): words("load"),
    ("gunicorn.arbiter.Arbiter", "handle_chld"): words("reap_workers"),
    ("gunicorn.arbiter.Arbiter", "run"): words("start manage_workers murder_workers wait_for_signals"),
    ("gunicorn.arbiter.Arbiter", "spawn_worker"): words("pre_fork post_fork init_process"),
    ("gunicorn.arbiter.Arbiter", "manage_workers"): words("spawn_workers num_workers"),
    ("gunicorn.arbiter.Arbiter", "reap_workers"): words("HaltServer WORKERS"),
    ("gunicorn.arbiter.Arbiter", "start"): words("LISTENERS pid when_ready"),
    ("gunicorn.workers.base.Worker", "init_process"): words("init_signals load_wsgi run"),
    ("gunicorn.workers.base.Worker", "init_signals"): words("handle_abort handle_exit handle_quit"),
    ("gunicorn.workers.gthread.ThreadWorker", "accept"): words("TConn enqueue_req"),
    ("gunicorn.workers.gthread.ThreadWorker", "handle"): words(
        "init initialized wait_for_data parser handle_request handle_error _keepalive_after"
    ),
    ("gunicorn.workers.gthread.ThreadWorker", "init_process"): words("get_thread_pool"),
    ("gunicorn.workers.gthread.ThreadWorker", "on_client_socket_readable"): words(
        "unregister keepalived_conns enqueue_req"
    ),
    ("gunicorn.workers.gthread.ThreadWorker", "run"): words(
        "_cap_keepalive alive method_queue murder_keepalived murder_pending nr_conns set_accept_enabled sockets tpool"
        " wait_for_and_dispatch_events"
    ),
}
# gunicorn's settings that are set or read.
SETTINGS = words(
    "address backlog bind certfile control_socket_disable forwarded_allow_ips forwarder_headers graceful_timeout"
    " header_map is_ssl keepalive keyfile limit_request_field_size limit_request_fields limit_request_line logger_class"
    " loglevel on_exit post_fork pre_fork proc_name threads timeout when_ready worker_abort worker_class"
    " worker_connections worker_int worker_tmp_dir workers"
)
# The parse errors whose ``hdr`` goes into the log.
ERRORS = ("InvalidHeader", "InvalidHeaderName", "ObsoleteFolding", "UnsupportedTransferCoding")
# The keys of the WSGI environ that receiver/server and the application read, besides those of PEP 3333.
ENVIRON = {"RAW_URI", "gunicorn.socket", "wsgi.input", "REMOTE_ADDR", "HTTP_TRANSFER_ENCODING", "CONTENT_TYPE"}


def found(dotted: str) -> object:
    """Return gunicorn's object of this name; fails with a sentence that names it."""
    module, _, name = dotted.rpartition(".")
    with contextlib.suppress(ImportError, AttributeError):
        return getattr(importlib.import_module(module), name)
    pytest.fail(f"gunicorn {version('gunicorn')} has no {dotted}, which receiver/server uses", pytrace=False)


def check(dotted: str, actual: object, expected: object) -> None:
    """Fail with a sentence that names ``dotted`` unless it is as ``expected``."""
    if actual != expected:
        text = (
            f"gunicorn {version('gunicorn')} has changed {dotted}: receiver/server expects {expected}, it is {actual}"
        )
        pytest.fail(text, pytrace=False)


@pytest.mark.parametrize("dotted", NAMES)
def test_gunicorn_has_each_name(dotted):
    there = found(dotted)
    if NAMES[dotted]:
        check(dotted, str(inspect.signature(there)), NAMES[dotted])


@pytest.mark.parametrize(
    ("base", "method", "signature"),
    [
        (base, method, signature)
        for table in (METHODS, INDIRECT)
        for base, methods in table.items()
        for method, signature in methods.items()
    ],
)
def test_gunicorn_has_each_method_with_its_signature(base, method, signature):
    there = found(base)
    if not hasattr(there, method):
        check(f"{base}.{method}", "missing", signature)
    check(f"{base}.{method}", str(inspect.signature(getattr(there, method))), signature)


@pytest.mark.parametrize(("base", "caller"), CALLS)
def test_gunicorn_still_calls_what_is_overridden(base, caller):
    code = getattr(found(base), caller).__code__
    inner = {name for part in code.co_consts if inspect.iscode(part) for name in part.co_names}
    check(f"{base}.{caller}", CALLS[base, caller] - {*code.co_names, *inner}, frozenset())


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def configuration():
    return found("gunicorn.config.Config")()


def application():
    """Return an application of gunicorn's that sets nothing."""
    base = found("gunicorn.app.base.BaseApplication")
    return type("Application", (base,), {"load_config": lambda self: None})()


def instances(ours: socket.socket) -> dict[str, object]:
    """Return an object of each class in ATTRIBUTES."""
    config, app = configuration(), application()
    worker = found("gunicorn.workers.gthread.ThreadWorker")
    return {
        "gunicorn.app.base.BaseApplication": app,
        "gunicorn.arbiter.Arbiter": found("gunicorn.arbiter.Arbiter")(app),
        "gunicorn.glogging.Logger": found("gunicorn.glogging.Logger")(config),
        "gunicorn.http.unreader.SocketUnreader": found("gunicorn.http.unreader.SocketUnreader")(ours),
        "gunicorn.workers.gthread.PollableMethodQueue": found("gunicorn.workers.gthread.PollableMethodQueue")(),
        "gunicorn.workers.gthread.TConn": found("gunicorn.workers.gthread.TConn")(config, ours, ("h", 1), ("h", 2)),
        "gunicorn.workers.gthread.ThreadWorker": worker(
            1, os.getppid(), [], app, 30, config, logging.getLogger("test")
        ),
    }


# Set by a method: (class, attribute) → its name.
LATER = {
    ("gunicorn.arbiter.Arbiter", "pid"): "start",
    ("gunicorn.workers.gthread.ThreadWorker", "wsgi"): "load_wsgi",
}


def test_gunicorns_objects_have_each_attribute(pair, monkeypatch):
    monkeypatch.setenv("SERVER_SOFTWARE", "")  # an Arbiter sets it
    objects = instances(pair[0])
    objects["gunicorn.workers.gthread.ThreadWorker"].tmp.close()
    for base, one in objects.items():
        for attribute in sorted(ATTRIBUTES[base]):
            if (base, attribute) in LATER:
                names = getattr(found(base), LATER[base, attribute]).__code__.co_names
                check(f"{base}.{attribute}", attribute in names, True)
            elif not hasattr(one, attribute):
                check(f"{base}.{attribute}", "missing", "an attribute")


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_gunicorn_has_each_setting(name):
    config = configuration()
    if name not in config.settings and not hasattr(config, name):
        check(f"the setting {name}", "missing", "one of Config.settings, or a property")


@pytest.mark.parametrize("name", ERRORS)
def test_parse_errors_name_the_header(name):
    error = found(f"gunicorn.http.errors.{name}")("name: value")
    assert isinstance(error, found("gunicorn.http.errors.ParseException"))
    assert error.hdr == "name: value"


def test_a_connection_that_ends_is_no_parse_error():
    error = found("gunicorn.http.errors.NoMoreData")
    assert issubclass(error, OSError) and not issubclass(error, found("gunicorn.http.errors.ParseException"))
    error()


class Recorder:
    """A socket that remembers each call of ``sendall``."""

    def __init__(self):
        self.sent = []

    def sendall(self, data):
        self.sent.append(bytes(data))


@pytest.fixture
def served(pair):
    """Return what serves one POST that expects 100-continue: parser, request, response, environ, client's socket."""
    ours, theirs = pair
    config = configuration()
    parser = found("gunicorn.http.get_parser")(config, ours, ("192.0.2.1", 1))
    parser.unreader.unread(
        b"POST /a%20b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: application/json\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
    )
    request = next(parser)
    expected, request._expected_100_continue = request._expected_100_continue, False
    create = found("gunicorn.http.wsgi.create")
    response, environ = create(request, ours, ("192.0.2.1", 1), ("192.0.2.2", 2), config)
    return SimpleNamespace(
        parser=parser, request=request, response=response, environ=environ, theirs=theirs, expected=expected
    )


def test_the_flag_of_100_continue_decides_whether_gunicorn_sends_it(served):
    assert served.expected is True
    served.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        served.theirs.recv(100)


def test_the_environ_has_each_key(served):
    assert served.environ.keys() >= ENVIRON
    assert served.environ["RAW_URI"] == "/a%20b" == served.request.uri
    assert served.environ["wsgi.input"].read() == b"[]"


def test_start_response_leads_to_the_response_and_that_to_its_request(served):
    response = served.response.start_response.__self__
    assert response is served.response
    assert response.req is served.request
    response.force_close()
    assert response.should_close()


def test_head_and_body_are_sent_by_one_call_each_on_the_socket_of_the_response(served):
    served.response.sock = recorder = Recorder()
    served.response.start_response("200 OK", [("Content-Length", "4")])
    served.response.write(b"body")
    served.response.close()
    head, *bodies = recorder.sent
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and head.endswith(b"\r\n\r\n")
    assert bodies == [b"body"]


def test_what_was_read_ahead_can_be_taken_from_the_unreader(served):
    unreader = served.parser.unreader
    unreader.unread(b"next")
    assert unreader.buf.getbuffer().nbytes >= len(b"next")
    assert unreader.take_buffered().startswith(b"next")
    assert unreader.buf.getbuffer().nbytes == 0


# The tables are complete


def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in sorted(SERVER.rglob("*.py"))]


def imported(tree: ast.Module) -> dict[str, str]:
    """Return local name → dotted name of what ``tree`` imports of gunicorn."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "gunicorn":
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        if isinstance(node, ast.Import):
            found |= {one.name: one.name for one in node.names if one.name.partition(".")[0] == "gunicorn"}
    return found


def test_every_name_of_gunicorn_that_is_used_is_in_the_table():
    used = set()
    for tree in trees():
        names = imported(tree)
        modules = {name for name, dotted in names.items() if inspect.ismodule(found(dotted))}
        used |= {dotted for name, dotted in names.items() if name not in modules}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                used.add(f"{names[node.value.id]}.{node.attr}")
    assert used == NAMES.keys()


def classes() -> dict[str, tuple[ast.ClassDef, list[str]]]:
    """Return the classes of receiver/server by name, each with its bases as dotted or own names."""
    known = {}
    for tree in trees():
        names = imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                known[node.name] = (
                    node,
                    [names.get(base.id, base.id) for base in node.bases if isinstance(base, ast.Name)],
                )
    return known


def own_names(node: ast.ClassDef) -> set[str]:
    """Return what the class defines itself: methods, and attributes that it assigns."""
    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    values = {
        target.id
        for one in node.body
        if isinstance(one, ast.Assign | ast.AnnAssign) and one.value is not None
        for target in (one.targets if isinstance(one, ast.Assign) else [one.target])
        if isinstance(target, ast.Name)
    }
    return methods | values | {one.attr for one in ast.walk(node) if of_self(one) and isinstance(one.ctx, ast.Store)}


def of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def of_super(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "super"
    )


def extended() -> Iterator[tuple[str, ast.ClassDef, set[str]]]:
    """Yield each base of gunicorn with the class that extends it and the names that are the receiver's own."""
    known = classes()
    for name in known:
        own, here = set(), name
        while here in known:
            node, bases = known[here]
            own |= own_names(node)
            here = next((base for base in bases if base in known or base.startswith("gunicorn.")), "")
        if here:
            yield here, known[name][0], own


def test_every_method_and_attribute_of_gunicorn_that_is_used_is_in_the_table():
    seen = {base: set() for base in METHODS}
    for base, node, own in extended():
        there = found(base)
        used = {one.attr for one in ast.walk(node) if of_super(one)}
        used |= {one.attr for one in ast.walk(node) if of_self(one) and one.attr not in own}
        used |= {name for name in own if hasattr(there, name) and name not in {"__doc__", "__module__"}}
        seen[base] |= used
    for base, used in seen.items():
        assert used - METHODS[base].keys() - ATTRIBUTES[base] == set(), base
        assert METHODS[base].keys() - used == set(), base


def test_every_setting_of_gunicorn_that_is_used_is_in_the_table():
    used = set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any(map(_sets, ast.walk(node))):
                keys = [key for one in ast.walk(node) if isinstance(one, ast.Dict) for key in one.keys]
                keys += [one.args[0] for one in ast.walk(node) if _sets(one)]
                used |= {key.value for key in keys if isinstance(key, ast.Constant)}
            if isinstance(node, ast.Attribute) and _name_of(node.value) in {"cfg", "config", "_config"}:
                used.add(node.attr)
    assert used - {"set"} == SETTINGS


def _name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _sets(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and _name_of(node.func) == "set"
        and _name_of(getattr(node.func, "value", node)) == "cfg"
    )
