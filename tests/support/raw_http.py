"""Requests and replies of HTTP as bytes."""

import json
import re

LIMIT = 1 << 20
READ_TIMEOUT = 2


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def request(platform, method="DELETE", body=b"", path=None, lines=(), drop=(), **claims) -> bytes:
    """Return a signed request as bytes; ``lines`` are further header lines, ``drop`` names of headers to leave out."""
    path = path or f"/api/storage/1/states/{platform.tenant}"
    headers = {"Host": "localhost", "Content-Type": "application/json"} | platform.headers(path, **claims)
    text = [f"{name}: {value}".encode() for name, value in headers.items() if name not in drop]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *text, *lines, b"", b""]) + body


def ids_of(state) -> bytes:
    return json.dumps([state["id"]]).encode()
