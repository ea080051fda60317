"""Opens gunicorn's listeners.

gunicorn's own function tries for five seconds, logs each attempt, and does not name the process that holds an address.
"""

import logging
from functools import partial

from gunicorn import sock
from gunicorn.config import Config

from receiver.network import listeners
from receiver.network.listeners import SocketAddress


def listen(config: Config, log: logging.Logger, setting: str, base: str) -> list[sock.BaseSocket]:
    """Return a listener for each address of ``config``, gunicorn's configuration; see receiver.network.listeners.

    An IPv6 address that PORT stands for accepts IPv4 as well. Raises AddressTaken, SettingsMistakes.
    """
    open_listener = partial(_listener, config, log, setting == "PORT")
    found: list[sock.BaseSocket] = []
    try:
        for address in config.address:
            found.append(listeners.opened(address, open_listener, setting, base))
    except BaseException:
        sock.close_sockets(found)
        raise
    return found


def _listener(config: Config, log: logging.Logger, is_dual: bool, address: SocketAddress) -> sock.BaseSocket:
    if isinstance(address, str):
        return sock.UnixSocket(address, config, log)
    host, port = address
    kind = sock.TCP6Socket if listeners.is_ipv6(host) else sock.TCPSocket
    plain = listeners.bound_socket(host, port, is_dual)
    return kind(address, config, log, fd=plain.detach())
