"""The sockets that a receiver listens on, and who holds an address that is taken.

gunicorn's own way tries for five seconds, logs each try, and names nobody.
"""

import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Any

from gunicorn import sock, util
from gunicorn.config import Config

from receiver.process.running import services
from receiver.settings import SettingsMistakes

_PATIENCE = 0.5  # seconds for who holds an address to let go of it
_PAUSE = 0.1
_LISTENS = "0A"  # the state in /proc/net/tcp, see proc(5)
_LOW_PORTS = "ports below 1024 need the capability CAP_NET_BIND_SERVICE"


class AddressTaken(Exception):
    """Another process listens where this one wants to. The text names the setting, the address and who it is."""


def listen(cfg: Config, log: Any, setting: str, base: str) -> list[sock.BaseSocket]:
    """Return a listener for each address of ``cfg``, gunicorn's configuration; ``setting`` names it to people.

    ``base`` is where receivers on this machine keep their folders. Raises AddressTaken after half a second,
    SettingsMistakes for what waiting does not change.
    """
    listeners: list[sock.BaseSocket] = []
    try:
        for address in cfg.address:
            listeners.append(_listener(address, cfg, log, setting, base))
    except BaseException:
        sock.close_sockets(listeners)
        raise
    return listeners


def _listener(address: tuple | str, cfg: Config, log: Any, setting: str, base: str) -> sock.BaseSocket:
    limit = time.monotonic() + _PATIENCE
    while True:
        try:
            if isinstance(address, str) and _answers(address):
                raise OSError(errno.EADDRINUSE, "another process listens there")
            return _bound(address, cfg, log, is_dual=setting == "PORT")
        except OSError as cause:
            if cause.errno != errno.EADDRINUSE:
                hint = f" ({_LOW_PORTS})" if cause.errno == errno.EACCES and isinstance(address, tuple) else ""
                reason = os.strerror(cause.errno) if cause.errno else type(cause).__name__
                raise SettingsMistakes([f"{setting}: cannot listen on {_shown(address)}: {reason}{hint}"]) from None
            if time.monotonic() >= limit:
                off = ", or off" if setting == "STORAGE_ADMIN_BIND" else ""
                raise AddressTaken(
                    f"{setting}: {_shown(address)} is taken: {_who_holds(address, base)}. Stop that one, or give this "
                    f"receiver another address{off}"
                ) from None
        time.sleep(_PAUSE)


def _bound(address: tuple | str, cfg: Config, log: Any, is_dual: bool) -> sock.BaseSocket:
    """Return a listener on ``address``; one of IPv6 that ``is_dual`` takes IPv4 as well, whatever the system says.

    Raises OSError, and leaves no socket open then, as gunicorn would.
    """
    if isinstance(address, str):
        return sock.UnixSocket(address, cfg, log)
    is_ipv6 = util.is_ipv6(address[0])
    plain = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_ipv6 and is_dual:
            plain.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        plain.bind(address)
        kind = sock.TCP6Socket if is_ipv6 else sock.TCPSocket
        return kind(address, cfg, log, fd=plain.detach())
    except OSError:
        plain.close()
        raise


def _answers(path: str) -> bool:
    """Tell whether a process listens on the Unix socket at ``path``; gunicorn would take the name away from it."""
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.settimeout(_PAUSE)
            trial.connect(path)
            return True
    return False


def _shown(address: tuple | str) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    return f"[{address[0]}]:{address[1]}" if util.is_ipv6(address[0]) else f"{address[0]}:{address[1]}"


def _who_holds(address: tuple | str, base: str) -> str:
    """Return for people who listens on ``address``: a receiver, another process, or one that cannot be named."""
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
    """Return pid and name of a process that listens on the TCP ``port``; None where that is not to be known."""
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
