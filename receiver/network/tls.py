"""Loads STORAGE_TLS_CERT, STORAGE_TLS_KEY and STORAGE_TLS_CLIENT_CA into a TLS context for connections.

TLS 1.2 or later, ephemeral keys and authenticated encryption only (RFC 9325), no compression, no renegotiation.
"""

import codecs
import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from receiver import files
from receiver.settings import Settings

_NAMES = {"tls_cert": "STORAGE_TLS_CERT", "tls_key": "STORAGE_TLS_KEY", "tls_client_ca": "STORAGE_TLS_CLIENT_CA"}
_BEGINNING = 512  # bytes
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # for TLS 1.2; all ciphers of 1.3 are of this kind

_NOT_PEM = {  # how a file begins → what it is, and what to do
    codecs.BOM_UTF16_LE: "it is text in UTF-16, as PowerShell writes it: save it in UTF-8",
    codecs.BOM_UTF16_BE: "it is text in UTF-16: save it in UTF-8",
    b"\x30": "it is in DER or PKCS #12: openssl x509, pkey or pkcs12 converts it to PEM",
    b"{": "it is JSON, perhaps a JWK; those are for PLATFORM_KEY and RECEIVER_KEY",
}


@dataclass(frozen=True)
class Terms:
    """TLS for new connections: the ``context``, a description of the ``certificate``, warnings about it, its expiry.

    An expired certificate does not prevent a start. Its client decides whether to go on; a restart at night, or a
    wrong clock, would turn a warning into an outage.
    """

    context: ssl.SSLContext
    certificate: str
    warnings: list[str]
    expires: datetime.datetime


def load(settings: Settings) -> tuple[Terms | None, list[str]]:
    """Return the terms for connections, None for plain HTTP, and all mistakes in the TLS ``settings``."""
    given = [name for name in _NAMES if name in settings.sources or getattr(settings, name)]
    if not given:
        return None, []
    missing = [name for name in ("tls_cert", "tls_key") if name not in given]
    if missing:
        return None, [f"{_NAMES[name]}: must be set when {_NAMES[given[0]]} is" for name in missing]
    if not all(getattr(settings, name) for name in given):
        return None, []  # a name without a file, which was reported before
    try:
        certificate = x509.load_pem_x509_certificates(Path(settings.tls_cert).read_bytes())[0]
    except (OSError, ValueError) as cause:
        return None, [f"STORAGE_TLS_CERT: must hold a certificate in PEM ({_misfit(settings.tls_cert, cause)})"]
    context, warnings = _context(), _out_of_time(certificate)
    mistakes = _load_key(context, settings)
    if exposed := files.check_private(settings.tls_key):
        (mistakes if settings.insecure_keys == "refuse" else warnings).append(f"STORAGE_TLS_KEY: {exposed}")
    if settings.tls_client_ca:
        mistakes += _load_authorities(context, settings.tls_client_ca)
    shown = f"certificate {certificate.serial_number:x}, valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z"
    return (None if mistakes else Terms(context, shown, warnings, certificate.not_valid_after_utc)), mistakes


def _out_of_time(certificate: x509.Certificate) -> list[str]:
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.datetime.now(datetime.UTC)
    if since <= now < until:
        return []
    return [f"STORAGE_TLS_CERT: the certificate is valid from {since:%Y-%m-%d} to {until:%Y-%m-%d} only, not now"]


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_key(context: ssl.SSLContext, settings: Settings) -> list[str]:
    """Load certificate and key into ``context``; returns the mistakes in the key."""
    asked = []

    def passphrase() -> str:  # without one OpenSSL would ask at the terminal
        asked.append(True)
        return settings.key_passphrase.text

    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, passphrase)
    except (OSError, ValueError) as cause:
        reason = _reason(cause)
        if reason == "KEY_VALUES_MISMATCH":
            return ["STORAGE_TLS_KEY: is not the key of the certificate in STORAGE_TLS_CERT"]
        if asked:
            return ["STORAGE_TLS_KEY: is protected by a passphrase, and STORAGE_KEY_PASSPHRASE is not that one"]
        return [f"STORAGE_TLS_KEY: must hold the certificate's private key in PEM ({_misfit(settings.tls_key, cause)})"]
    return []


def _load_authorities(context: ssl.SSLContext, path: str) -> list[str]:
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(path)
    except OSError as cause:
        return [f"STORAGE_TLS_CLIENT_CA: must hold certificates in PEM ({_misfit(path, cause)})"]
    return []


def _misfit(path: str, cause: Exception) -> str:
    """Return what the file at ``path`` holds instead of PEM, if it can be recognised; else why reading it failed."""
    try:
        with open(path, "rb") as file:
            data = file.read(_BEGINNING)
    except OSError:
        return _reason(cause)
    if data.startswith(b"-----BEGIN ") and b"\n" not in data and b"\r" not in data:
        return "its line ends were lost, or are written as \\n"
    return next((what for beginning, what in _NOT_PEM.items() if data.startswith(beginning)), _reason(cause))


def _reason(cause: Exception) -> str:
    """Return why it failed, in OpenSSL's or the system's words; never quotes the file."""
    return getattr(cause, "reason", None) or getattr(cause, "strerror", None) or type(cause).__name__
