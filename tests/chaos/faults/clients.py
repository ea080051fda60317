"""Clients that are slow, or die in the middle of a request."""

import socket
import struct
import uuid
from contextlib import ExitStack

from receiver.mock_platform.client import BASE, Client
from tests.chaos.faults import Fault, fault
from tests.support.slow_clients import SlowClients, rendered
from tests.support.waiting import pass_time

_AT_ONCE = 40
_BODY = b"[" + b" " * 300_000


def _request(subject, receiver, method: str, body: bytes = b"") -> bytes:
    """Return a signed request about a state that is nobody's; a body of it is no JSON, so nothing is ever changed."""
    client = Client(receiver.url, str(uuid.uuid4()), subject.keys)
    path = f"{BASE}/states/{client.tenant}"
    path += "" if method == "POST" else f"/{uuid.uuid4()}"
    return rendered(method, path, client.headers(path), body)


@fault
class SlowlySending(Fault):
    name = "slow-clients"
    injects = f"{_AT_ONCE} clients that send a body at 2 KB a second, and as many that send a head byte by byte"
    guarantees = "Slow clients hold no thread: requests of others are answered as before."
    every, lasts = (1.0, 2.0), (5.0, 10.0)

    def inject(self, subject, step):
        receiver = step.choose(subject.receivers)
        address = ("127.0.0.1", receiver.port)
        with ExitStack() as stack:
            for method, body, at_once, rate in (("POST", _BODY, 1200, 2000), ("GET", b"", 100, 20)):
                made = SlowClients(
                    address,
                    _AT_ONCE,
                    lambda method=method, body=body: _request(subject, receiver, method, body),
                    sent_rate=rate,
                    at_once=at_once,
                )
                stack.enter_context(made)
            pass_time(step.lasts, "they are slow for as long as the schedule says")


@fault
class Dying(Fault):
    name = "dying-clients"
    injects = "clients that reset their connection in the head, in the body, and before the reply"
    guarantees = "No request of another client fails; no process ends."
    every = (0.05, 0.2)

    def details(self, chance):
        return {"after": chance.choice(("half a head", "half a body", "a whole request"))}

    def inject(self, subject, step):
        receiver, after = step.choose(subject.receivers), step.details["after"]
        request = _request(subject, receiver, "POST" if after == "half a body" else "GET", _BODY[:50_000])
        sent = {"half a head": request[:400], "half a body": request[:20_000]}.get(after, request)
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=5) as sock:
            sock.sendall(sent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets it
