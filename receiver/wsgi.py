"""What the worker and the application agree on: the path as it was sent, and what they tell each other in the environ.

| key in the WSGI environ | set by          | value                                                                |
|-------------------------|-----------------|----------------------------------------------------------------------|
| BODY_READ               | the application | True once it has read the body to its end                            |
| TENANT                  | the application | the tenant (str) once the signature holds                            |
| CONTINUE                | the worker      | an AskForBody, if the client waits for "100 Continue"                |
| ADMIT                   | the worker      | an AdmitBody, if the worker limits how many bodies are worked on     |
| MAY_ANSWER              | the worker      | a MayAnswer, if the worker answers requests whose store hangs        |
| INSTEAD                 | the application | an Instead: the reply that the worker sends to such a request        |

Under another server the worker's three are missing, and nothing is lost but those limits.
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes

from receiver.problems import Reply
from receiver.protocol import BASE_PATH

Environ = dict[str, Any]  # PEP 3333: servers put values of many types into it

BODY_READ = "receiver.body_read"
TENANT = "receiver.tenant"
CONTINUE = "receiver.continue"
ADMIT = "receiver.admit"
MAY_ANSWER = "receiver.may_answer"
INSTEAD = "receiver.instead"
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]+")  # what stands before the path in absolute-form


class AskForBody(Protocol):
    """Asks a waiting client for the body of its request."""

    def __call__(self) -> None:
        """Send "100 Continue"."""


class AdmitBody(Protocol):
    """Limits how many bodies are worked on at once."""

    def __call__(self, size: int, /) -> None:
        """Return when a body of ``size`` bytes may be worked on; raise Busy when that takes too long."""


class MayAnswer(Protocol):
    """Claims the request for the thread that asks."""

    def __call__(self) -> bool:
        """Return False when the worker has answered the request meanwhile; else only the caller answers it."""


class Instead(Protocol):
    """Answers a request whose thread is held by its store."""

    def __call__(self) -> Reply:
        """Return the error reply, and count and log the request."""


def may_answer(environ: Environ) -> bool:
    """Return whether this thread may answer the request, and is the only one; see MayAnswer."""
    claim: MayAnswer | None = environ.get(MAY_ANSWER)
    return claim is None or claim()


def ask_for_body(environ: Environ) -> None:
    """Ask the client for the body, if it waits for that."""
    ask: AskForBody | None = environ.get(CONTINUE)
    if ask is not None:
        ask()


def admit_body(environ: Environ, size: int) -> None:
    """Note that the body, of ``size`` bytes, was read, and return when it may be worked on; raises Busy."""
    environ[BODY_READ] = True
    admit: AdmitBody | None = environ.get(ADMIT)
    if admit is not None:
        admit(size)


def raw_path(environ: Mapping[str, Any]) -> str:
    """Return the path of the request URI in ``environ`` exactly as it was sent; "/" if there is none."""
    uri: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    path = uri.partition("#")[0].partition("?")[0]  # first of all: a query may hold anything
    if not path.startswith("/"):  # absolute-form, RFC 9112 section 3.2.2
        origin = _ORIGIN.match(path)
        path = path[origin.end() :] if origin else ""
    return path or "/"


def is_routed_as_sent(environ: Mapping[str, Any]) -> bool:
    """Tell whether the server routes the request in ``environ`` by its raw path and not by another reading of it.

    The signature covers the raw path. If the server read the request URI in another way, it signs another call.
    """
    mounted = environ.get("SCRIPT_NAME", "").encode("latin-1")
    rest = environ.get("PATH_INFO", "").encode("latin-1")
    return bool(unquote_to_bytes(raw_path(environ).encode("latin-1")) == unquote_to_bytes(mounted) + rest)


def public_path(path: str, prefix: str) -> str:
    """Return ``path``, as it was received, with the ``prefix`` that a proxy may have taken off."""
    return path if has_prefix(path, prefix) else prefix + path


def has_prefix(path: str, prefix: str) -> bool:
    """Tell whether ``path`` still has the ``prefix`` that a proxy may take off, in front of the API's base path."""
    return path.startswith(f"{prefix}{BASE_PATH}/")
