"""The connection to the receiver itself, past every proxy: where it listens, trusting only its own certificate."""

import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from receiver.doctor.client import ReceiverClient
from receiver.doctor.findings import cause_text
from receiver.mock_platform.keys import StoreKeys
from receiver.network.addresses import AccessPolicy
from receiver.process.running import Service
from receiver.settings import Settings

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the certificates' own check reports one that has expired
# How to reach what listens on all addresses; "::" answers on IPv4 alone if IPv6 is turned off.
_LOOPBACK = {"0.0.0.0": ("127.0.0.1",), "::": ("127.0.0.1", "::1")}  # noqa: S104
_PATIENCE = 2.0  # seconds to connect
_BY_URL = "give its public address: --url https://..."


class NoDirectPath(Exception):
    """The receiver itself cannot be reached; the text says why, ``fix`` what helps."""

    def __init__(self, text: str, fix: str) -> None:
        self.fix = fix
        super().__init__(text)


@dataclass(frozen=True)
class TLSOptions:
    """The TLS ``context`` for the public URL, and one for the receiver itself.

    ``own`` trusts no certificate yet; ``has_client_certificate`` tells whether both can show one.
    """

    context: ssl.SSLContext
    own: ssl.SSLContext
    has_client_certificate: bool = False


def direct(settings: Settings, service: Service, tls: TLSOptions, tenant: str, keys: StoreKeys) -> ReceiverClient:
    """Return a client of the running receiver ``service``; raises NoDirectPath."""
    addresses = [one for one in service.addresses if not one.startswith("unix:")]
    if not addresses:
        raise NoDirectPath("the receiver listens on a Unix socket only", _BY_URL)
    parts = urlsplit(addresses[0])
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    host = _host(parts.hostname or "", port, AccessPolicy(settings.allow_from, settings.trusted_proxies))
    if secure and settings.tls_client_ca and not tls.has_client_certificate:
        raise NoDirectPath("the receiver asks for a client certificate", "--client-cert FILE --client-key FILE")
    context = _trusting(tls.own, settings.tls_cert) if secure else None
    return ReceiverClient(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}", tenant, keys, context)


def _host(hostname: str, port: int, policy: AccessPolicy) -> str:
    """Return the address by which this machine reaches ``hostname`` and that ``policy`` admits; raises NoDirectPath."""
    hosts = _LOOPBACK.get(hostname, (hostname,))
    admitted = [host for host in hosts if policy.admits(host, "", False)]
    if not admitted:
        raise NoDirectPath(f"STORAGE_ALLOW_FROM keeps {hosts[0]}, this machine, out", _BY_URL)
    for host in admitted[:-1]:
        with contextlib.suppress(OSError), socket.create_connection((host, port), _PATIENCE):
            return host
    return admitted[-1]


def _trusting(context: ssl.SSLContext, path: str) -> ssl.SSLContext:
    """Let ``context`` accept the certificate in the file ``path`` and no other, whatever names it holds."""
    try:
        leaf = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
        context.load_verify_locations(cadata=leaf.public_bytes(Encoding.DER))
    except (OSError, ValueError) as cause:
        message = f"the certificate of the receiver cannot be read: {cause_text(cause)}"
        raise NoDirectPath(message, "see tls") from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context
