"""Judges clients by address: STORAGE_ALLOW_FROM admits them, STORAGE_TRUSTED_PROXIES vouch for their own clients.

An IPv4 address that an IPv6 socket writes as ``::ffff:192.0.2.1`` counts as that IPv4 address.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_LONGEST = 64  # characters; an address with brackets, zone and port has fewer
_WITH_PORT = re.compile(r"\[(?P<ipv6>[^\]]+)\](?::\d{1,5})?|(?P<ipv4>[\d.]+):\d{1,5}", re.ASCII)


def address_of(text: str) -> Address | None:
    """Return the address in ``text``, which may have a zone and a port as sockets and proxies write them, or None."""
    return _parsed(text) if len(text) <= _LONGEST else None


@lru_cache(4096)
def _parsed(text: str) -> Address | None:
    host = text.strip()
    if match := _WITH_PORT.fullmatch(host):
        host = match["ipv6"] or match["ipv4"]
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def unmapped(address: object) -> object:
    """Return the socket ``address``; where a dual-stack socket wrote ``::ffff:192.0.2.1``, the IPv4 form of it."""
    if isinstance(address, tuple) and address[0].startswith("::ffff:") and "." in address[0]:
        return address[0].removeprefix("::ffff:"), address[1]
    return address


class Networks:
    """A set of addresses and networks; ``in`` tells whether an address (or None) belongs to one of them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = [_unmapped(ipaddress.ip_network(text)) for text in texts]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _unmapped(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    inner = getattr(network.network_address, "ipv4_mapped", None)
    return ipaddress.ip_network((inner, network.prefixlen - 96)) if inner and network.prefixlen >= 96 else network


class AccessPolicy:
    """Tells who a client is and whether it may connect; ``peer`` is a socket's address, empty for a Unix socket."""

    def __init__(self, allowed: Iterable[str] = (), trusted: Iterable[str] = ()) -> None:
        self._allowed = Networks(allowed)
        self._trusted = Networks(trusted)

    def lets_in(self, peer: str) -> bool:
        """Tell whether ``peer`` may connect; a trusted proxy may, for any client behind it."""
        if not self._allowed or not peer:
            return True
        address = address_of(peer)
        return address in self._allowed or address in self._trusted

    def admits(self, peer: str, forwarded: str, is_probe: bool) -> bool:
        """Tell whether a request from ``peer`` with the X-Forwarded-For ``forwarded`` may be answered.

        ``is_probe``: it is a health check. A load balancer sends these on its own behalf, so a trusted proxy may.
        """
        if not self._allowed or not peer:
            return True
        return self._client(peer, forwarded) in self._allowed or (is_probe and address_of(peer) in self._trusted)

    def trusts(self, peer: str) -> bool:
        """Tell whether the headers that ``peer`` adds to a request are believed."""
        return bool(self._trusted) and address_of(peer) in self._trusted

    def client(self, peer: str | None, forwarded: str) -> str:
        """Return the client's address for the log: ``peer``, or the address that trusted proxies vouch for."""
        found = self._client(peer, forwarded) if peer and forwarded and self._trusted else None
        return str(found or peer or "-")

    def _client(self, peer: str, forwarded: str) -> Address | None:
        """Walk from ``peer`` through ``forwarded``, right to left, as long as each address is a trusted proxy's.

        Returns None when a trusted proxy names something that is no address. Nothing vouches for the rest.
        """
        here = address_of(peer)
        while forwarded and here in self._trusted:
            forwarded, _, last = forwarded.rpartition(",")
            here = address_of(last)
        return here
