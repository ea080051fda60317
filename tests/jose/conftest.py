"""joserfc without its small limits: a state may have tens of megabytes."""

import pytest
from joserfc import jws
from joserfc._rfc7518.jwe_zips import DeflateZipModel

from tests.support.joserfc_platform import BIG


@pytest.fixture(autouse=True)
def large(monkeypatch):
    monkeypatch.setattr(DeflateZipModel, "MAX_SIZE", BIG)
    monkeypatch.setattr(jws.JWSRegistry, "max_payload_length", BIG)
