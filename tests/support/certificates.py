"""Certificates of an authority that lives as long as a test: files for a receiver, contexts for its clients."""

import datetime
import ssl

import trustme

AUTHORITY = trustme.CA()


def write(folder, name="server", until=None, since=None, authority=AUTHORITY):
    """Write ``name``.pem and ``name``.key for 127.0.0.1 into ``folder``; returns the variables that name them."""
    made = authority.issue_cert("127.0.0.1", "localhost", not_after=until, not_before=since)
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    (folder / f"{name}.pem").write_bytes(chain)
    (folder / f"{name}.key").write_bytes(made.private_key_pem.bytes())
    (folder / f"{name}.key").chmod(0o600)
    return {"STORAGE_TLS_CERT": str(folder / f"{name}.pem"), "STORAGE_TLS_KEY": str(folder / f"{name}.key")}


def days(count):
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=count)


def trusting(with_certificate=False, authority=AUTHORITY) -> ssl.SSLContext:
    """Return the context of a client that trusts ``authority``, perhaps with a certificate of its own by it."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if with_certificate:
        authority.issue_cert("client@example.com").configure_cert(context)
    return context
