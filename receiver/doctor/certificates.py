"""TLS in the process: whether the files belong together, the chain is whole, and how long it all lasts."""

import datetime
import itertools
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from receiver.doctor.case import Case
from receiver.doctor.findings import Finding, fail, ok, warn
from receiver.network import tls
from receiver.settings import Settings

SUBJECT = "tls"
_SOON = datetime.timedelta(days=30)
_LACKING = {2, 20, 21}  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, ..._LOCALLY, UNABLE_TO_VERIFY_LEAF_SIGNATURE
_ROUNDS = 10  # of a handshake, which has three
_NAMES = ("STORAGE_TLS_CERT", "STORAGE_TLS_KEY", "STORAGE_TLS_CLIENT_CA")
_MENDS = (
    (
        "is not the key of the certificate",
        "name the two files that were made together; compare: openssl x509 -noout -pubkey",
    ),
    ("everybody on this machine", "chmod o= {key}"),
    ("passphrase", "set STORAGE_KEY_PASSPHRASE_FILE to a file that holds it"),
    ("STORAGE_TLS_CERT: must hold", "openssl x509 -noout -in {cert}, and get it again from the authority"),
    ("STORAGE_TLS_KEY: must hold", "openssl pkey -noout -in {key}, and get it again"),
)


def check(case: Case, authorities: ssl.SSLContext | None, now: datetime.datetime | None = None) -> Iterator[Finding]:
    """Yield what there is to say of certificates; those of ``authorities`` are known to the receiver's clients."""
    settings, now = case.settings, now or datetime.datetime.now(datetime.UTC)
    if case.is_mistaken(*_NAMES):
        yield warn(SUBJECT, "which files are meant is not known: their settings are wrong", "see settings")
        return
    terms, mistakes = tls.load(settings)
    for mistake in mistakes:
        yield fail(SUBJECT, mistake, _mend_of(mistake, settings))
    if terms is None:
        if not mistakes:
            yield ok(SUBJECT, "none in this process: a proxy in front has to speak it")
        return
    chain = x509.load_pem_x509_certificates(Path(settings.tls_cert).read_bytes())
    problems = _times(chain, "STORAGE_TLS_CERT", now) + _order(chain, settings.tls_cert) + _names(chain[0])
    problems = problems or _completeness(terms, chain, settings, authorities)
    if settings.tls_client_ca:
        problems += _times(_read(settings.tls_client_ca), "STORAGE_TLS_CLIENT_CA", now)
    for warning in terms.warnings:
        if "everybody" in warning:
            yield warn(SUBJECT, warning, _mend_of(warning, settings))
    yield from problems
    days = (chain[0].not_valid_after_utc - now).days
    names = ", ".join(_names_in(chain[0])[:4])
    asks = "; clients must show a certificate" if settings.tls_client_ca else ""
    if not any(one.verdict == "fail" for one in problems):
        yield ok(SUBJECT, f"a certificate for {names or 'no name'}, {len(chain)} in the file, {days} days left{asks}")


def _mend_of(mistake: str, settings: Settings) -> str:
    for said, mend in _MENDS:
        if said in mistake:
            return mend.format(key=shlex.quote(settings.tls_key), cert=shlex.quote(settings.tls_cert))
    return f"correct {mistake.partition(':')[0]}"


def _read(path: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(Path(path).read_bytes())


def _times(chain: list[x509.Certificate], name: str, now: datetime.datetime) -> list[Finding]:
    """Return which certificates of the file that ``name`` names are out of their time, or soon will be."""
    found = []
    for one in chain:
        who, until = _common_name(one.subject), one.not_valid_after_utc
        if until <= now:
            told = f"{name}: the certificate of {who} has expired on {until:%Y-%m-%d}"
            found.append(fail(SUBJECT, told, "renew it; the receiver takes the new file within seconds"))
        elif one.not_valid_before_utc > now:
            told = f"{name}: the certificate of {who} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M}Z"
            found.append(fail(SUBJECT, told, "see clock; else wait, or put the former one back"))
        elif until - now < _SOON:
            told = f"{name}: the certificate of {who} expires on {until:%Y-%m-%d}, in {(until - now).days} days"
            found.append(warn(SUBJECT, told, "renew it, and see why that was not done: certbot renew --dry-run"))
    return found


def _order(chain: list[x509.Certificate], path: str) -> list[Finding]:
    """Return where the chain in the file ``path`` is not in the order in which it is sent."""
    for number, (one, issuer) in enumerate(itertools.pairwise(chain), 2):
        if not _is_issued_by(one, issuer):
            told = f"STORAGE_TLS_CERT: certificate {number} in the file has not issued the one before it"
            mend = f"put them in order, the server's first, then who issued it: {shlex.quote(path)}"
            return [fail(SUBJECT, told, mend)]
    return []


def _completeness(terms: tls.Terms, chain: list[x509.Certificate], settings: Settings, authorities) -> list[Finding]:
    """Return whether a client that knows ``authorities``, or this machine's, lacks a link of ``chain``: it is asked."""
    names = _names_in(chain[0])
    if not names or _refusal(terms.context, names[0].replace("*", "any"), authorities) not in _LACKING:
        return []
    told = (
        f"STORAGE_TLS_CERT: {_common_name(chain[-1].issuer)}, who issued the last certificate in the file, is neither"
        " in it nor among the authorities that this machine knows: clients that do not know it refuse it"
    )
    mend = (
        f"append it: cat issuer.pem >> {shlex.quote(settings.tls_cert)}; if it is your own authority: doctor --ca FILE"
    )
    return [warn(SUBJECT, told, mend)]


def _refusal(server: ssl.SSLContext, name: str, authorities: ssl.SSLContext | None) -> int:
    """Return OpenSSL's code for why a client refuses the certificate of ``server`` as that of ``name``; 0 if not."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = (authorities or ssl.create_default_context()).wrap_bio(back, there, server_hostname=name)
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
    told = "STORAGE_TLS_CERT: names no host in subjectAltName, and clients look nowhere else"
    return [fail(SUBJECT, told, "have a certificate issued with subjectAltName=DNS:the.host.name")]


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME) or name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(found[0].value) if found else "no name"
