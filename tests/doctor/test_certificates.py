"""The doctor on certificates and the files of TLS."""

import ssl

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from receiver.doctor.checks import certificates
from receiver.doctor.subject import Subject
from receiver.settings import read
from tests.support import certificates as authority
from tests.support.doctoring import reported


def tls_of(folder, context=None, **variables):
    settings, mistakes = read({"STORAGE_KEYS": str(folder), **variables})
    return reported(certificates.check(Subject(settings, tuple(mistakes)), context or ssl.create_default_context()))


def test_certificates_that_are_well(tmp_path):
    report = tls_of(tmp_path, authority.trusting(), **authority.write(tmp_path, until=authority.days(90)))
    assert report.worse_than_ok() == []
    assert "localhost, 127.0.0.1, 1 in the file, 89 days left" in report.one("tls", "ok").message
    assert "a proxy in front" in tls_of(tmp_path).one("tls", "ok").message


@pytest.mark.parametrize(
    ("since", "until_", "verdict", "seen"),
    [(None, 10, "warn", "in 9 days"), (-20, -1, "fail", "has expired"), (1, 20, "fail", "is not valid before")],
)
def test_certificates_out_of_their_time(tmp_path, since, until_, verdict, seen):
    days = authority.days
    variables = authority.write(tmp_path, until=days(until_), since=None if since is None else days(since))
    assert tls_of(tmp_path, authority.trusting(), **variables).one("tls", verdict, seen).fix


def test_a_chain_that_lacks_a_link_or_is_out_of_order(tmp_path):
    below = authority.AUTHORITY.create_child_ca()
    variables = authority.write(tmp_path, authority=below, until=authority.days(90))
    chain = tmp_path / "server.pem"
    assert tls_of(tmp_path, authority.trusting(), **variables).worse_than_ok() == []
    tls_of(tmp_path, None, **variables).one("tls", "warn", "neither in it nor among the authorities", "--ca FILE")
    whole = x509.load_pem_x509_certificates(chain.read_bytes())
    pem = [one.public_bytes(Encoding.PEM) for one in whole]
    chain.write_bytes(pem[0])
    tls_of(tmp_path, authority.trusting(), **variables).one("tls", "warn", "neither in it nor among", f">> {chain}")
    stranger = trustme.CA().cert_pem.bytes()
    chain.write_bytes(pem[0] + stranger + pem[1])
    tls_of(tmp_path, authority.trusting(), **variables).one("tls", "fail", "certificate 2 in the file has not issued")


def test_files_of_tls_that_do_not_belong_together_or_are_gone(tmp_path):
    variables = authority.write(tmp_path)
    other = authority.write(tmp_path, "other")
    mixed = variables | {"STORAGE_TLS_KEY": other["STORAGE_TLS_KEY"]}
    tls_of(tmp_path, **mixed).one("tls", "fail", "is not the key of the certificate", "made together")
    (tmp_path / "server.key").chmod(0o644)
    tls_of(tmp_path, **variables).one("tls", "fail", "everybody on this machine", f"chmod o= {tmp_path}/server.key")
    (tmp_path / "server.pem").write_text("nothing")
    tls_of(tmp_path, **variables).one("tls", "fail", "must hold a certificate", "openssl x509")
    (tmp_path / "server.pem").unlink()
    tls_of(tmp_path, **variables).one("tls", "warn", "their settings are invalid", "see settings")


def test_authorities_of_clients_expire_too(tmp_path):
    expired = authority.write(tmp_path, "expired", until=authority.days(-1), since=authority.days(-9))
    variables = authority.write(tmp_path, until=authority.days(90))
    variables["STORAGE_TLS_CLIENT_CA"] = expired["STORAGE_TLS_CERT"]
    tls_of(tmp_path, authority.trusting(), **variables).one("tls", "fail", "STORAGE_TLS_CLIENT_CA", "has expired")
