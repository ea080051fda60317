"""Parsers of settings: text → value. Each raises ValueError that says what is valid and never repeats the value."""

import ipaddress
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

from receiver.encoding import canonical_uuid
from receiver.files import ownership
from receiver.jose.key_texts import quoted
from receiver.stores.urls import store_url

_SIZE = re.compile(r"(\d{1,12})\s*(B|KiB|MiB|GiB)?", re.IGNORECASE | re.ASCII)
_QUOTED_PART = re.compile(r"""["]|(?<=[:/@=])'[^/@?]*'(?=[@/?:&]|$)|'$""")  # of a URL, where a " is never legal
_UNITS = {"b": 0, "kib": 10, "mib": 20, "gib": 30}
_BIND = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[\w.-]*)):(?P<port>\d{1,5})|unix:(?P<socket>/[^/].*)", re.ASCII
)


def text(value: str) -> str:
    """Return ``value`` as it is."""
    return value


def login(value: str) -> str:
    """Return ``value``, a user or a password; refuses one with quotes or a line end around it."""
    if value != value.rstrip("\r\n") or quoted(value):
        raise ValueError(
            "must not have quotes around it or a line end behind it; if they belong to it, write it into DATABASE_URL,"
            " where %22, %27 and %0A stand for them"
        )
    return value


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``least`` to ``most``."""

    def parse(value: str) -> int:
        if re.fullmatch(r"\d{1,9}", value, re.ASCII) and least <= int(value) <= most:
            return int(value)
        raise ValueError(f"must be a whole number from {least} to {most}")

    return parse


def seconds(least: float, most: float) -> Callable[[str], float]:
    """Return a parser of seconds, decimals allowed, from ``least`` to ``most``."""

    def parse(value: str) -> float:
        if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value, re.ASCII) and least <= float(value) <= most:
            return float(value)
        raise ValueError(f"must be seconds from {least:g} to {most:g}")

    return parse


def size(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of a number of bytes from ``least`` to ``most``, with or without KiB, MiB or GiB."""

    def parse(value: str) -> int:
        match = _SIZE.fullmatch(value)
        if match:
            number = int(match.group(1)) << _UNITS[(match.group(2) or "B").lower()]
            if least <= number <= most:
                return number
        raise ValueError(f"must be bytes from {least} to {most}, such as {_example(most)}")

    return parse


def _example(most: int) -> str:
    return "33554432 or 32MiB" if most >= 32 << 20 else "16384 or 16KiB"


def compression(value: str) -> str | int:
    """Return ``value`` if it is always or never, else the size in bytes of the largest content to compress."""
    if value in ("always", "never"):
        return value
    try:
        return size(1, 1 << 30)(value)
    except ValueError:
        raise ValueError("must be always, never, or bytes from 1 to 1073741824, such as 102400 or 100KiB") from None


def choice(*names: str) -> Callable[[str], str]:
    """Return a parser that takes exactly one of ``names``."""

    def parse(value: str) -> str:
        if value in names:
            return value
        raise ValueError(f"must be one of {', '.join(names)}")

    return parse


def bind(value: str) -> str:
    """Return ``value`` if gunicorn can listen on it: host:port, [ipv6]:port or unix:/path."""
    match = _BIND.fullmatch(value)
    if not match or int(match["port"] or 0) > 65535:
        raise ValueError("must be host:port, [ipv6]:port or unix:/path")
    if match["socket"]:
        if not os.access(os.path.dirname(match["socket"]), os.W_OK | os.X_OK):
            hint = ownership(os.path.dirname(match["socket"]))
            raise ValueError(f"must name a socket in a folder that exists and is writable{hint}")
        return value
    host = match["ipv6"] or match["host"] or None
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        with socket.socket(*found[0][:3]) as trial:
            trial.bind(found[0][4])  # on any free port: the start shows whether the right one is free
    except OSError:
        raise ValueError("must name an address of this machine") from None
    return value


def every_address(port: int) -> str:
    """Return the address that means all addresses at ``port``: IPv6 and IPv4 by one socket, or only IPv4."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            trial.bind(("::", 0))
    except OSError:  # a kernel without IPv6, or with it turned off
        return f"0.0.0.0:{port}"
    return f"[::]:{port}"


def bind_or_off(value: str) -> str:
    """Return ``value`` as ``bind`` does, or "off"."""
    try:
        return value if value == "off" else bind(value)
    except ValueError as cause:
        raise ValueError(f"{cause}; or off") from None


def directory(value: str) -> Path:
    """Return ``value`` as the path of a directory that exists."""
    if value and os.path.isdir(value):  # Path.is_dir may raise
        return Path(value)
    raise ValueError("must be the path of a directory that exists")


def run_dir(value: str) -> str:
    """Return ``value`` as the path of a directory that exists and in which folders can be made."""
    if os.path.isdir(value) and os.access(value, os.W_OK | os.X_OK):
        return value
    hint = ownership(value) if os.path.isdir(value) else ""
    raise ValueError(f"must be the path of a directory that exists and is writable{hint}")


def file(value: str) -> str:
    """Return ``value`` as the path of a file that exists."""
    if value and os.path.isfile(value):
        return value
    raise ValueError("must be the path of a file that exists")


def prefix(value: str) -> str:
    """Return ``value`` as the prefix of the API's path, percent-encoded as clients send it."""
    if re.fullmatch(r"(/[\w.~!$&'()*+,;=:@%-]+)+", value, re.ASCII) and not re.search(r"/\.{1,2}(/|$)", value):
        return value
    raise ValueError("must be the beginning of a path, such as /flow, without a slash at its end")


def addresses(value: str) -> tuple[str, ...]:
    """Return the addresses and networks in ``value``, separated by commas."""
    try:
        return tuple(str(ipaddress.ip_network(part.strip())) for part in value.split(","))
    except ValueError:
        raise ValueError("must be IP addresses or networks separated by commas, such as 10.0.0.5,10.1.0.0/16") from None


def database_url(value: str) -> str:
    """Return ``value`` as the URL of a store that this version supports."""
    found = value.strip()
    store_url.parse(found)
    if not found.startswith("jdbc:") and _QUOTED_PART.search(found):
        raise ValueError("must not have quotes around it or its parts; if they belong there, write %22 or %27")
    return found


def uuids(value: str) -> frozenset[str]:
    """Return the UUIDs in ``value``, separated by commas, in lower case."""
    parts = value.split(",")
    found = [found for part in parts if (found := canonical_uuid(part.strip()))]
    if len(found) < len(parts):
        raise ValueError("must be UUIDs separated by commas")
    return frozenset(found)


def uuid(value: str) -> str:
    """Return ``value``, a UUID, in lower case."""
    found = canonical_uuid(value.strip())
    if found is None:
        raise ValueError("must be a UUID")
    return found


def label(value: str) -> str:
    """Return ``value`` as one line of text for people."""
    if value.isprintable() and len(value) <= 80:
        return value
    raise ValueError("must be a text of at most 80 printable characters")
