"""The way to the receiver itself, past every proxy: where it listens, and its own certificate as the only one."""

import contextlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from receiver.doctor.case import Case
from receiver.doctor.findings import told_cause
from receiver.doctor.line import Line
from receiver.mock_platform.keys import StoreKeys
from receiver.network.addresses import AccessPolicy

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: that it has expired is told elsewhere
# What listens on all addresses is reached by these; where IPv6 is turned off, "::" still is, and answers on IPv4 alone.
_LOOPBACK = {"0.0.0.0": ("127.0.0.1",), "::": ("127.0.0.1", "::1")}  # noqa: S104
_PATIENCE = 2.0  # seconds to connect


class Closed(Exception):
    """There is no way to the receiver itself; the text says what is in it, ``mend`` what helps."""

    def __init__(self, text: str, mend: str):
        self.mend = mend
        super().__init__(text)


@dataclass(frozen=True)
class Way:
    """What TLS needs: a ``context`` for the public URL, None without TLS; and one for the receiver itself.

    ``own`` trusts nobody yet, ``identified`` tells whether it has a certificate of this client.
    """

    context: ssl.SSLContext | None
    own: ssl.SSLContext
    identified: bool = False


def direct(case: Case, way: Way, tenant: str, keys: StoreKeys) -> Line:
    """Return a line to the receiver of ``case``; raises Closed."""
    settings, service = case.settings, case.service
    addresses = [one for one in service.addresses if not one.startswith("unix:")]
    if not addresses:
        raise Closed("the receiver listens on a Unix socket only", "name its public address: --url https://...")
    parts = urlsplit(addresses[0])
    host = _host(parts.hostname, parts.port, AccessPolicy(settings.allow_from, settings.trusted_proxies))
    secure = parts.scheme == "https"
    if secure and settings.tls_client_ca and not way.identified:
        raise Closed("the receiver asks for a client certificate", "--client-cert FILE --client-key FILE")
    context = _trusting(way.own, settings.tls_cert) if secure else None
    return Line(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{parts.port}", tenant, keys, context)


def _host(hostname: str, port: int, gate: AccessPolicy) -> str:
    """Return the address by which this machine reaches ``hostname``, one that ``gate`` admits; raises Closed."""
    hosts = _LOOPBACK.get(hostname, (hostname,))
    admitted = [host for host in hosts if gate.admits(host, "", False)]
    if not admitted:
        told = f"STORAGE_ALLOW_FROM keeps {hosts[0]}, this machine, out"
        raise Closed(told, "name its public address: --url https://...")
    for host in admitted[:-1]:
        with contextlib.suppress(OSError), socket.create_connection((host, port), _PATIENCE):
            return host
    return admitted[-1]


def _trusting(context: ssl.SSLContext, path: str) -> ssl.SSLContext:
    """Let ``context`` accept the certificate in the file ``path``, whatever it is called, and no other."""
    try:
        leaf = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
        context.load_verify_locations(cadata=leaf.public_bytes(Encoding.DER))
    except (OSError, ValueError) as cause:
        raise Closed(f"the certificate of the receiver is not known: {told_cause(cause)}", "see tls") from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context
