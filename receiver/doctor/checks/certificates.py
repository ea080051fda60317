"""TLS in the process: whether the files fit each other, the chain is complete, and when it expires."""

import datetime
import itertools
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from receiver.doctor.findings import FAIL, Finding, fail, ok, warn
from receiver.doctor.subject import Subject
from receiver.network import tls
from receiver.settings import Settings

TOPIC = "tls"
_SOON = datetime.timedelta(days=30)
_LACKING = {2, 20, 21}  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, ..._LOCALLY, UNABLE_TO_VERIFY_LEAF_SIGNATURE
_ROUNDS = 10  # of a handshake, which has three
_NAMES = ("STORAGE_TLS_CERT", "STORAGE_TLS_KEY", "STORAGE_TLS_CLIENT_CA")
_FIXES = (
    (
        "is not the key of the certificate",
        "name the two files that were made together; compare: openssl x509 -noout -pubkey",
    ),
    ("everybody on this machine", "chmod o= {key}"),
    ("passphrase", "set STORAGE_KEY_PASSPHRASE_FILE to a file that holds it"),
    ("STORAGE_TLS_CERT: must hold", "openssl x509 -noout -in {cert}, and get it again from the authority"),
    ("STORAGE_TLS_KEY: must hold", "openssl pkey -noout -in {key}, and get it again"),
)


def check(subject: Subject, authorities: ssl.SSLContext, now: datetime.datetime | None = None) -> Iterator[Finding]:
    """Yield findings on the certificates; the receiver's clients trust ``authorities``."""
    settings, now = subject.settings, now or datetime.datetime.now(datetime.UTC)
    if subject.is_invalid(*_NAMES):
        yield warn(TOPIC, "the certificate files are not known: their settings are invalid", "see settings")
        return
    terms, mistakes = tls.load(settings)
    for mistake in mistakes:
        yield fail(TOPIC, mistake, _fix_for(mistake, settings))
    if terms is not None:
        yield from _judged(terms, settings, authorities, now)
    elif not mistakes:
        yield ok(TOPIC, "none in this process: a proxy in front has to terminate TLS")


def _judged(
    terms: tls.Terms, settings: Settings, authorities: ssl.SSLContext, now: datetime.datetime
) -> Iterator[Finding]:
    """Yield findings on a certificate that can be used."""
    chain = _read(settings.tls_cert)
    problems = _times(chain, "STORAGE_TLS_CERT", now) + _order(chain, settings.tls_cert) + _names(chain[0])
    problems = problems or _completeness(terms, chain, settings, authorities)
    if settings.tls_client_ca:
        problems += _times(_read(settings.tls_client_ca), "STORAGE_TLS_CLIENT_CA", now)
    for warning in terms.warnings:
        if "everybody" in warning:
            yield warn(TOPIC, warning, _fix_for(warning, settings))
    yield from problems
    if not any(one.verdict == FAIL for one in problems):
        days = (chain[0].not_valid_after_utc - now).days
        names = ", ".join(_names_in(chain[0])[:4])
        asks = "; clients must show a certificate" if settings.tls_client_ca else ""
        yield ok(TOPIC, f"a certificate for {names or 'no name'}, {len(chain)} in the file, {days} days left{asks}")


def _fix_for(mistake: str, settings: Settings) -> str:
    for text, fix in _FIXES:
        if text in mistake:
            return fix.format(key=shlex.quote(settings.tls_key), cert=shlex.quote(settings.tls_cert))
    return f"correct {mistake.partition(':')[0]}"


def _read(path: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(Path(path).read_bytes())


def _times(chain: list[x509.Certificate], name: str, now: datetime.datetime) -> list[Finding]:
    """Return which certificates in the file of the setting ``name`` are not valid now, or expire soon."""
    found = []
    for one in chain:
        who, until = f"{name}: the certificate of {_common_name(one.subject)}", one.not_valid_after_utc
        if until <= now:
            message = f"{who} has expired on {until:%Y-%m-%d}"
            found.append(fail(TOPIC, message, "renew it; the receiver reads the new file within seconds"))
        elif one.not_valid_before_utc > now:
            message = f"{who} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M}Z"
            found.append(fail(TOPIC, message, "see clock; else wait, or put the previous one back"))
        elif until - now < _SOON:
            message = f"{who} expires on {until:%Y-%m-%d}, in {(until - now).days} days"
            fix = "renew it, and find out why the automatic renewal did not: certbot renew --dry-run"
            found.append(warn(TOPIC, message, fix))
    return found


def _order(chain: list[x509.Certificate], path: str) -> list[Finding]:
    """Return a finding if the chain in the file ``path`` is out of order."""
    for number, (one, issuer) in enumerate(itertools.pairwise(chain), 2):
        if not _is_issued_by(one, issuer):
            message = f"STORAGE_TLS_CERT: certificate {number} in the file has not issued the one before it"
            return [fail(TOPIC, message, f"sort them, the server's first, then its issuer: {shlex.quote(path)}")]
    return []


def _completeness(
    terms: tls.Terms, chain: list[x509.Certificate], settings: Settings, authorities: ssl.SSLContext
) -> list[Finding]:
    """Return a finding if a client that trusts ``authorities`` lacks a link of ``chain``: a handshake tells."""
    names = _names_in(chain[0])
    if not names or _refusal(terms.context, names[0].replace("*", "any"), authorities) not in _LACKING:
        return []
    message = (
        f"STORAGE_TLS_CERT: {_common_name(chain[-1].issuer)}, the issuer of the last certificate in the file, is"
        " neither in it nor among the authorities that this machine trusts: other clients refuse the certificate"
    )
    append = f"append it: cat issuer.pem >> {shlex.quote(settings.tls_cert)}"
    return [warn(TOPIC, message, f"{append}; if it is your own authority: doctor --ca FILE")]


def _refusal(server: ssl.SSLContext, name: str, authorities: ssl.SSLContext) -> int:
    """Return OpenSSL's code for why a client refuses the certificate of ``server`` for ``name``; 0 if it accepts."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = authorities.wrap_bio(back, there, server_hostname=name)
    ends = (client, server.wrap_bio(there, back, server_side=True))
    for _ in range(_ROUNDS):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as cause:
                return cause.verify_code
            except ssl.SSLError:
                return 0
            if end is client:
                return 0
    return 0


def _is_issued_by(one: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names_in(certificate: x509.Certificate) -> list[str]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    return [*alternatives.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _names(certificate: x509.Certificate) -> list[Finding]:
    if _names_in(certificate):
        return []
    message = "STORAGE_TLS_CERT: names no host in subjectAltName, and clients look nowhere else"
    return [fail(TOPIC, message, "have a certificate issued with subjectAltName=DNS:the.host.name")]


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME) or name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(found[0].value) if found else "no name"
