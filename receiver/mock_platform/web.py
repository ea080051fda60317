"""Serves the simulated platform over HTTP: the calls of calls.py, and a page that shows what happens.

The header ManyWhoTenant names the tenant; without it, the first tenant is meant. This is a tool for a laptop: it has no
accounts, listens on a loopback address, and refuses requests that a page of another origin could make a browser send.
"""

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable
from importlib import resources

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from receiver.mock_platform import bodies
from receiver.mock_platform.calls import CALLS, Call, Request, Simulator
from receiver.mock_platform.model import Refusal

_MOST_BODY = 1 << 20
_PAGE = resources.files("receiver.mock_platform").joinpath("page.html").read_text("utf-8")


def _hashes(tag: str) -> str:
    """Return the policy sources that allow only the page's own inline ``tag`` elements."""
    inline = re.findall(f"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


_POLICY = (
    f"default-src 'none'; connect-src 'self'; script-src {_hashes('script')}; style-src {_hashes('style')}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(simulator: Simulator) -> Flask:
    """Return the Flask application for ``simulator``, whose platform has at least one tenant."""
    app = Flask("receiver.mock_platform", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MOST_BODY
    app.before_request(_refuse_strangers)
    app.register_error_handler(Refusal, lambda refusal: _reply({"message": str(refusal)}, refusal.status))
    app.register_error_handler(HTTPException, lambda cause: _reply({"message": cause.description}, cause.code))
    app.add_url_rule("/", "page", _show_page)
    for call in CALLS:
        app.add_url_rule(call.rule, f"{call.method} {call.rule}", _view(simulator, call), methods=[call.method])
    return app


def _view(simulator: Simulator, call: Call) -> Callable[..., Response]:
    def view(**of_path: str) -> Response:
        body = bodies.parse(request.get_data(cache=False), call.body) if call.body else {}
        asked = Request(simulator, request.headers.get("ManyWhoTenant"), body, request.args.get("after", 0, int))
        reply = call.do(asked, **of_path)
        return _reply(reply.value, reply.status)

    return view


def make(app: Flask, host: str, port: int) -> BaseWSGIServer:
    """Return a server for ``app`` with a thread for each connection; the caller runs its serve_forever."""
    return make_server(host, port, app, threaded=True, request_handler=_Quiet)


class _Quiet(WSGIRequestHandler):
    timeout = 60
    server_version = "platform"
    sys_version = ""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: the page shows what matters."""


def _refuse_strangers() -> None:
    """Refuse requests from another origin: it cannot use this host name, and cannot send JSON without preflight."""
    host = request.host.rpartition(":")[0] if re.search(r":\d+$", request.host) else request.host
    try:
        known = ipaddress.ip_address(host.strip("[]")) is not None
    except ValueError:
        known = host == "localhost"
    if not known:
        raise Refusal(421, "use an IP address or localhost as the host name")
    if request.method == "POST" and request.mimetype != "application/json":
        raise Refusal(415, "the body must be application/json; curl has --json")


def _reply(value: object, status: int = 200) -> Response:
    text = "" if status == 204 else json.dumps(value) + "\n"
    return Response(text, status, mimetype="application/json", headers={"Cache-Control": "no-store"})


def _show_page() -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(_PAGE, mimetype="text/html", headers=headers)
