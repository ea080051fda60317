"""Faults in HTTP: statuses, methods, headers and bodies."""

import json

from receiver import body, strictjson
from receiver.server import application
from tests.support.faults.declaring import fault


def middleware(before=None, after=None):
    """Answer what ``before`` (environ) returns, or let ``after`` (environ, status, headers, body) change the answer."""
    whole = application.create_app

    def create(*what):
        app = whole(*what)

        def called(environ, start):
            if before and (answer := before(environ)):
                start(answer[0], [("Content-Length", str(len(answer[1])))])
                return [answer[1]]
            told = []
            found = b"".join(app(environ, lambda status, headers, _=None: told.extend((status, headers))))
            status, headers = told
            if after:
                status, headers, found = after(environ, status, headers, found)
                headers = [one for one in headers if one[0] != "Content-Length"] + [("Content-Length", str(len(found)))]
            start(status, headers if status[:3] != "204" else [h for h in headers if h[0] != "Content-Length"])
            return [found]

        return called

    application.create_app = create


@fault("signature.key-ids-missing", "tokens.names-item")
def answers_500_instead_of_400():
    middleware(after=lambda environ, status, *rest: ("500 Oops" if status[:3] == "400" else status, *rest))


@fault("load.unknown")
def answers_500_instead_of_404():
    middleware(after=lambda environ, status, *rest: ("500 Oops" if status[:3] == "404" else status, *rest))


@fault("load.unknown", "delete.removes")
def answers_200_for_a_state_that_is_not_there():
    middleware(
        after=lambda environ, status, headers, found: (
            ("200 OK", headers, b'{"token": null}') if status[:3] == "404" else (status, headers, found)
        )
    )


@fault("http.error-shape")
def answers_errors_without_JSON():
    middleware(after=lambda environ, status, headers, found: (status, headers, b"" if status[0] in "45" else found))


@fault("http.error-silent")
def shows_a_stack_trace():
    trace = b'{"message": "Traceback (most recent call last): File \\"/srv/receiver/app.py\\", line 1"}'
    middleware(after=lambda environ, status, headers, found: (status, headers, trace if status[0] in "45" else found))


@fault("http.health")
def wants_a_signature_for_health():
    middleware(lambda environ: ("401 No", b"") if environ["PATH_INFO"].endswith("/health") else None)


@fault("http.health-silent")
def tells_its_version_in_health():
    told = b'{"status": "ok", "version": "1.2.3", "database": "sqlite:////var/lib/states.db"}'
    middleware(lambda environ: ("200 OK", told) if environ["PATH_INFO"].endswith("/health") else None)


@fault("save.new")
def answers_200_instead_of_204():
    middleware(
        after=lambda environ, status, headers, found: ("200 OK" if status[:3] == "204" else status, headers, found)
    )


@fault("http.method-override")
def lets_a_header_change_the_method():
    middleware(
        lambda environ: environ.update(REQUEST_METHOD=environ.get("HTTP_X_HTTP_METHOD", environ["REQUEST_METHOD"]))
    )


@fault("http.head")
def does_not_answer_HEAD():
    middleware(lambda environ: ("405 No", b"") if environ["REQUEST_METHOD"] == "HEAD" else None)


@fault("http.content-type-other")
def does_not_look_at_the_content_type():
    body._check_type = lambda environ: None


@fault("http.content-type")
def wants_the_content_type_to_the_letter():
    middleware(
        lambda environ: ("415 No", b"{}") if environ.get("CONTENT_TYPE") not in (None, "", "application/json") else None
    )


@fault("http.duplicate-member")
def takes_the_last_of_two_members():
    strictjson._members = dict


@fault("http.not-json")
def reads_JSON_in_any_encoding():
    strictjson.loads = json.loads


@fault("framing.chunked")
def reads_no_chunks():
    middleware(
        lambda environ: ("411 No", b"") if "HTTP_TRANSFER_ENCODING" in environ else None,
    )


@fault("framing.two-signatures")
def takes_the_last_of_two_signatures():
    def before(environ):
        name = "HTTP_X_MANYWHO_SIGNATURE"
        if "," in environ.get(name, ""):
            environ[name] = environ[name].rpartition(",")[2].strip()

    middleware(before)


@fault("framing.huge")
def swallows_a_body_of_any_size():
    def read(environ, _limit):
        return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))

    body.read = read
