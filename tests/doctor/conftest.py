"""Fixtures for the tests of the doctor."""

import pytest

from tests.support.doctoring import serving


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("doctor"), STORAGE_WORKERS="4") as found:
        yield found
