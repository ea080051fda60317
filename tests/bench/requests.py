"""Requests, signed and rendered to bytes before any time is measured; the states that they are about."""

import base64
import json
import random
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from receiver.mock_platform import tokens
from receiver.mock_platform.client import BASE
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import StoreKeys

SIZES = {"7 KB": 7_000, "100 KB": 100_000, "1 MB": 1_000_000, "10 MB": 10_000_000}  # bytes of content, in UTF-8
COUNTS = {"7 KB": 500, "100 KB": 200, "1 MB": 40, "10 MB": 8}  # requests of a cell
CALLS = ("POST", "GET", "mixed", "DELETE")
SHARES = {"GET": 0.60, "POST": 0.35, "DELETE": 0.05}  # of mixed


@dataclass(frozen=True)
class Request:
    """A request as it goes over the wire, and the ``status`` that answers it."""

    head: bytes
    body: bytes
    status: int


@dataclass(frozen=True)
class Saved:
    """A state's ``id`` and the ``body`` of the POST that saves it."""

    id: str
    body: bytes


def content_of(size: int, tenant: str, seed: int = 5) -> FlowRun:
    """Return a run whose content has at least ``size`` bytes, and hardly more; the same for the same ``seed``."""
    flow = FlowRun(tenant, seed)
    if size < 5_000:  # a run that has only begun
        flow.entries, flow.values = flow.entries[:1], dict(list(flow.values.items())[:1])
        flow.entries[0]["userInteractions"] = []
    while (missing := size - len(flow.content().encode())) > 0:
        for _ in range(max(1, missing // 1000)):
            flow.step()
    return flow


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Platform:
    """The platform of one tenant: signs and renders requests. ``keys`` are those of its store."""

    def __init__(self, tenant: str, keys: StoreKeys):
        self.tenant, self.keys = tenant, keys
        self.path = f"{BASE}/states/{tenant}"
        self._private = keys.platform.jwk.get_op_key("sign")
        self._head = _base64url(_compact({"alg": "ES384", "kid": keys.platform.kid, "typ": "JWT"}))

    def jws_size(self, state: dict) -> int:
        """Return the bytes of ``state`` as the platform signs it."""
        return len(tokens.sign(tokens.state_claims(state), self.keys.platform))

    def states(self, state: dict, size: int, count: int) -> list[Saved]:
        """Return ``count`` states like ``state``, of ``size`` bytes, sealed; ids of their own, the content shared."""
        chance = random.Random(f"{self.tenant} {size}")
        ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(count)]

        def seal(id: str) -> Saved:
            return Saved(id, _compact([{"token": tokens.seal_state(state | {"id": id}, self.keys)}]))

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(seal, ids))

    def get(self, id: str) -> Request:
        return self._request("GET", f"{self.path}/{id}", b"", 200)

    def post(self, state: Saved) -> Request:
        return self._request("POST", self.path, state.body, 204)

    def delete(self, id: str) -> Request:
        return self._request("DELETE", self.path, _compact([id]), 204)

    def _request(self, method: str, path: str, body: bytes, status: int) -> Request:
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: 127.0.0.1",
            f"X-ManyWho-Platform-Key-ID: {self.keys.platform.kid}",
            f"X-ManyWho-Receiver-Key-ID: {self.keys.receiver.kid}",
            f"X-ManyWho-Signature: {self._signature(path)}",
        ]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return Request("\r\n".join([*lines, "", ""]).encode(), body, status)

    def _signature(self, path: str) -> str:
        claims = tokens.request_claims(self.tenant, path, time.time())
        signed = f"{self._head}.{_base64url(_compact(claims))}"
        r, s = decode_dss_signature(self._private.sign(signed.encode(), ec.ECDSA(hashes.SHA384())))
        return f"{signed}.{_base64url(r.to_bytes(48) + s.to_bytes(48))}"


def requests_of(call: str, platform: Platform, states: Sequence[Saved], count: int, seed: int) -> list[Request]:
    """Return ``count`` signed requests of ``call`` about ``states``; none that is deleted is asked for as well.

    Of "mixed" the last states are those that are deleted. The signatures hold for five minutes from now.
    """
    chance = random.Random(seed)
    if call == "GET":
        return [platform.get(chance.choice(states).id) for _ in range(count)]
    if call == "POST":
        return [platform.post(states[number % len(states)]) for number in range(count)]
    if call == "DELETE":
        return [platform.delete(states[number % len(states)].id) for number in range(count)]
    deleted = max(1, round(count * SHARES["DELETE"]))
    saved = max(1, round(count * SHARES["POST"]))
    kept = states[:-deleted]
    mixed = [platform.delete(state.id) for state in states[-deleted:]]
    mixed += [platform.post(chance.choice(kept)) for _ in range(saved)]
    mixed += [platform.get(chance.choice(kept).id) for _ in range(max(1, count - len(mixed)))]
    chance.shuffle(mixed)
    return mixed


def changed(call: str, states: Sequence[Saved], count: int) -> tuple[Iterable[str], Iterable[str]]:
    """Return the ids that ``requests_of`` with these arguments saves, and those that it deletes."""
    if call == "GET":
        return (), ()
    if call == "mixed":
        return (), [state.id for state in states[-max(1, round(count * SHARES["DELETE"])) :]]
    ids = [state.id for state in states[:count]]
    return (ids, ()) if call == "POST" else ((), ids)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
