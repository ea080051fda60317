"""Fixtures for the tests of the admin listener."""

import pytest

from receiver.mock_platform.keys import new_store
from tests.support.admin import serving


@pytest.fixture(scope="module")
def admin(tmp_path_factory):
    with serving(new_store(), tmp_path_factory.mktemp("admin")) as running:
        yield running
