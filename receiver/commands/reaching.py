"""The options for reaching a receiver from outside: its URL, and the files for TLS."""

import ssl
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import click


def url_parts(url: str) -> SplitResult:
    """Return the parts of ``url``; raises click's BadParameter unless it is a server's URL, perhaps with a path."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        known = False
    if not known or parts.query or parts.fragment or "@" in parts.netloc:
        raise click.BadParameter(
            "must be http://host:port or https://host:port, perhaps with a path", param_hint="--url"
        )
    return parts


def tls_context(ca: Path | None, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    """Return a client's context that trusts ``ca``, or the machine's authorities; raises click's UsageError."""
    if key and not cert:
        raise click.UsageError("--client-key needs --client-cert")
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if cert:
            context.load_cert_chain(str(cert), str(key) if key else None)
    except (OSError, ssl.SSLError) as cause:
        raise click.UsageError(f"--ca, --client-cert or --client-key cannot be used: {cause}") from None
    return context
