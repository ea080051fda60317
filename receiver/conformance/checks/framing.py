"""HTTP framing: where a body ends, and what is refused unread. Cases E01, E03, E05, E06, E10 and A25."""

import json

from receiver.conformance.registry import check
from receiver.conformance.target import statuses
from receiver.conformance.trial import SIGNATURE, Trial
from receiver.mock_platform.json_values import JSON, JSONObject

_FRAMINGS = {
    "length and chunked": ("Content-Length: {size}", "Transfer-Encoding: chunked"),
    "two lengths": ("Content-Length: {size}", "Content-Length: 2"),
    "a length with a sign": ("Content-Length: +{size}",),
    "a negative length": ("Content-Length: -1",),
    "a length in hex": ("Content-Length: 0x2",),
    "an unknown coding": ("Transfer-Encoding: xchunked",),
    "two codings": ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "a space before the colon": ("Transfer-Encoding : chunked",),
}
_CHUNKS = {
    "a negative size": b"-%(size)x\r\n%(body)s\r\n0\r\n\r\n",
    "a size with an 0x prefix": b"0x%(size)x\r\n%(body)s\r\n0\r\n\r\n",
    "no line end after the data": b"%(size)x\r\n%(body)s0\r\n\r\n",
    "an early end": b"%(size)x\r\n%(body)s\r\n",
}


def _request(trial: Trial, method: str, body: bytes = b"", *lines: str, drop: str = "", **claims: JSON) -> bytes:
    """Return a signed request to the tenant's states as bytes; ``lines`` are extra header lines."""
    path = trial.path()
    headers = {"Host": trial.target.parts.netloc, "Content-Type": "application/json"} | trial.headers(path, **claims)
    text = [f"{name}: {value}" for name, value in headers.items() if name != drop]
    head = "\r\n".join([f"{method} {trial.target.prefix}{path} HTTP/1.1", *text, *lines, "", ""])
    return head.encode() + body


def _delete_of(trial: Trial, state: JSONObject, *lines: str, **how: JSON) -> bytes:
    body = json.dumps([state["id"]]).encode()
    return _request(trial, "DELETE", body, *(line.format(size=len(body)) for line in lines), **how)


def _expect(trial: Trial, received: bytes, what: str, *allowed: int) -> None:
    found = statuses(received)
    if len(found) > 1 or (found and found[0] not in allowed):
        wanted = " or ".join(map(str, allowed))
        trial.fail(f"{wanted}, or a closed connection ({what})", f"{found} came")


@check("framing.length", "must", "A plain request with Content-Length succeeds.", "RFC 9112 6")
def length(trial: Trial) -> None:
    state = trial.stored()
    received = trial.wire(_delete_of(trial, state, "Content-Length: {size}", "Connection: close"), wait=10)
    if statuses(received) != [204]:
        trial.fail("204", f"{statuses(received)} came")
    trial.expect_absent(state["id"], "it was deleted")


@check("framing.chunked", "should", "The receiver reads a chunked body, as RFC 9112 requires.", "RFC 9112 7.1")
def chunked(trial: Trial) -> None:
    state = trial.stored()
    body = json.dumps([state["id"]]).encode()
    chunks = b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    data = _request(trial, "DELETE", chunks, "Transfer-Encoding: chunked", "Connection: close")
    received = trial.wire(data, wait=10)
    if statuses(received) != [204]:
        trial.fail("204", f"{statuses(received)} came")
    trial.expect_absent(state["id"], "it was deleted")


@check(
    "framing.ambiguous",
    "should",
    "The receiver refuses a body with two possible ends and never runs the rest as a request.",
    "E01, RFC 9112 6.3",
)
def ambiguous(trial: Trial) -> None:
    state = trial.stored()
    tail = _delete_of(trial, state, "Content-Length: {size}")
    for what, lines in _FRAMINGS.items():
        _expect(trial, trial.wire(_delete_of(trial, state, *lines) + tail, wait=1.5), what, 400, 411, 501)
    trial.expect_content(state["id"], state["content"], "the state that no valid request deleted")


@check("framing.chunks", "should", "Malformed chunks are answered 400 and have no effect.", "E03")
def chunks(trial: Trial) -> None:
    state = trial.stored()
    body = json.dumps([state["id"]]).encode()
    for what, form in _CHUNKS.items():
        data = _request(trial, "DELETE", form % {b"size": len(body), b"body": body}, "Transfer-Encoding: chunked")
        _expect(trial, trial.wire(data, wait=1.5, finish=True), what, 400)
    trial.expect_content(state["id"], state["content"])


@check("framing.short", "should", "A body that ends early changes nothing.", "E06")
def short(trial: Trial) -> None:
    state = trial.stored()
    received = trial.wire(_delete_of(trial, state, "Content-Length: 1000"), wait=1.0, finish=True)
    _expect(trial, received, "41 of 1000 bytes", 400, 408)
    trial.expect_content(state["id"], state["content"])


@check(
    "framing.huge", "should", "The receiver refuses a body of 99 GB by its declared length, without reading it.", "E05"
)
def huge(trial: Trial) -> None:
    data = _request(trial, "POST", b"[", "Content-Length: 99000000000", "Connection: close")
    received = trial.wire(data, wait=5)
    if statuses(received) != [413]:
        trial.fail("413", f"{statuses(received)} came")


@check(
    "framing.unread",
    "should",
    "The receiver never takes the unread body of a refused request for the next request.",
    "E01",
)
def unread(trial: Trial) -> None:
    state = trial.stored()
    inner = _delete_of(trial, state, "Content-Length: {size}", "Connection: close")
    outer = _request(trial, "DELETE", inner, f"Content-Length: {len(inner)}", aud="somebody else")
    received = trial.wire(outer, wait=1.5)
    _expect(trial, received, "an unsigned request around a signed one", 401)
    trial.expect_content(state["id"], state["content"], "the state that only a body named")


@check(
    "framing.two-signatures",
    "should",
    "The receiver refuses a request with two signature headers: neither one counts.",
    "A25",
)
def two_signatures(trial: Trial) -> None:
    state = trial.stored()
    good, bad = f"{SIGNATURE}: {trial.signature(trial.path())}", f"{SIGNATURE}: x.y.z"
    for lines in ((good, bad), (bad, good)):
        data = _delete_of(trial, state, "Content-Length: {size}", "Connection: close", *lines, drop=SIGNATURE)
        _expect(trial, trial.wire(data, wait=5), "two signature headers", 400, 401)
    trial.expect_content(state["id"], state["content"])


@check(
    "framing.imitated",
    "should",
    "X_ManyWho_Signature is another header, even if a gateway treats the two alike.",
    "A25",
)
def imitated(trial: Trial) -> None:
    state = trial.stored()
    for name in (SIGNATURE.replace("-", "_"), SIGNATURE.replace("-", "_", 1)):
        line = f"{name}: {trial.signature(trial.path())}"
        data = _delete_of(trial, state, "Content-Length: {size}", "Connection: close", line, drop=SIGNATURE)
        _expect(trial, trial.wire(data, wait=5), name, 400, 401)
    trial.expect_content(state["id"], state["content"])


@check("framing.trailer", "should", "The receiver refuses a signature that arrives after the body.", "A25")
def trailer(trial: Trial) -> None:
    state = trial.stored()
    body = json.dumps([state["id"]]).encode()
    signature = trial.signature(trial.path()).encode()
    late = b"%x\r\n%s\r\n0\r\n%s: %s\r\n\r\n" % (len(body), body, SIGNATURE.encode(), signature)
    lines = ("Transfer-Encoding: chunked", f"Trailer: {SIGNATURE}")
    data = _request(trial, "DELETE", late, *lines, drop=SIGNATURE)
    _expect(trial, trial.wire(data, wait=1.5), "the signature in a trailer", 400, 401)
    trial.expect_content(state["id"], state["content"])


@check("framing.two-hosts", "should", "A request with two Host headers is answered 400.", "E10, RFC 9112 3.2")
def two_hosts(trial: Trial) -> None:
    state = trial.stored()
    data = _delete_of(trial, state, "Content-Length: {size}", "Connection: close", "Host: other")
    _expect(trial, trial.wire(data, wait=5), "two Host headers", 400)
    trial.expect_content(state["id"], state["content"])


@check("framing.no-http", "should", "Data that is not HTTP is refused or dropped, and affects no other caller.", "E10")
def no_http(trial: Trial) -> None:
    for data in (b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\nHost: x\r\n\r\n"):
        _expect(trial, trial.wire(data, wait=1.5, finish=True), repr(data[:12]), 400, 404, 414, 505)
    trial.expect(trial.client.health(), 200, what="health afterwards")
