"""Opens the sockets of a receiver, and names the process that holds an address already."""

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from receiver.process.running import services
from receiver.settings import SettingsMistakes

_PATIENCE = 0.5  # seconds for another process to release the address
_PAUSE = 0.1
_LISTENS = "0A"  # the state in /proc/net/tcp, see proc(5)
_LOW_PORTS = "ports below 1024 need the capability CAP_NET_BIND_SERVICE"

SocketAddress = tuple[str, int] | str  # host and port, or the path of a Unix socket


class AddressTaken(Exception):
    """Another process listens on the address. The text names the setting, the address and the process."""


Listener = TypeVar("Listener")


def opened(
    address: SocketAddress, open_listener: Callable[[SocketAddress], Listener], setting: str, base: str
) -> Listener:
    """Return ``open_listener(address)``; ``setting`` is where the address comes from.

    ``base`` is the directory with the run folders of this machine's receivers. Raises AddressTaken after half a
    second, and SettingsMistakes for a fault that does not pass by waiting.
    """
    limit = time.monotonic() + _PATIENCE
    while True:
        try:
            if isinstance(address, str) and _answers(address):
                raise OSError(errno.EADDRINUSE, "another process listens there")
            return open_listener(address)
        except OSError as cause:
            if cause.errno != errno.EADDRINUSE:
                hint = f" ({_LOW_PORTS})" if cause.errno == errno.EACCES and isinstance(address, tuple) else ""
                reason = os.strerror(cause.errno) if cause.errno else type(cause).__name__
                raise SettingsMistakes([f"{setting}: cannot listen on {_shown(address)}: {reason}{hint}"]) from None
            if time.monotonic() >= limit:
                other = {"PORT": "another port", "STORAGE_ADMIN_BIND": "another address or to off"}
                raise AddressTaken(
                    f"{setting}: {_shown(address)} is taken: {_holder_shown(address, base)}. Stop that process, or set "
                    f"{setting} to {other.get(setting, 'another address')}"
                ) from None
        time.sleep(_PAUSE)


def bound_socket(host: str, port: int, is_dual: bool) -> socket.socket:
    """Return a TCP socket bound to ``host`` and ``port``; raises OSError, and leaves no socket open then.

    An IPv6 socket that ``is_dual`` accepts IPv4 as well, whatever the system's default is.
    """
    ipv6 = is_ipv6(host)
    plain = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ipv6 and is_dual:
            plain.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        plain.bind((host, port))
    except OSError:
        plain.close()
        raise
    return plain


def is_ipv6(host: str) -> bool:
    """Tell whether ``host`` is an IPv6 address."""
    try:
        socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return False
    return True


def _answers(path: str) -> bool:
    """Tell whether a process listens on the Unix socket at ``path``: opening a listener would replace the file."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.settimeout(_PAUSE)
            trial.connect(path)
            return True
    return False


def _shown(address: SocketAddress) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if is_ipv6(address[0]) else f"{address[0]}:{address[1]}"


def _holder_shown(address: SocketAddress, base: str) -> str:
    """Describe the process that listens on ``address``: a receiver, another process, or one that cannot be named."""
    ends = f"unix:{address}" if isinstance(address, str) else f":{address[1]}"
    for service in services(base):
        if any(one and one.endswith(ends) for one in (*service.addresses, service.admin)):
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(service.started))
            return f"a receiver runs here already, pid {service.pid}, since {since}"
    holder = None if isinstance(address, str) else _holder_of(address[1])
    if holder is None:
        return "another process listens there, which only root can name (ss -ltnp)"
    pid, name = holder
    return f"{name} listens there, pid {pid}"


def _holder_of(port: int) -> tuple[int, str] | None:
    """Return pid and name of a process that listens on the TCP ``port``; None where this user cannot see it."""
    links = {f"socket:[{inode}]" for inode in _inodes(port)}
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") in links:
                        return int(pid), _name_of(pid)
    return None


def _inodes(port: int) -> Iterator[str]:
    """Yield the inode of each socket that listens on the TCP ``port``, see proc(5)."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            next(lines)
            for line in lines:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _name_of(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
