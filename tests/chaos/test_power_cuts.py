"""Power cuts at any moment: the short form of ``make chaos FAULT=power-cut``."""

import pytest

from tests.chaos.defects import all_defects
from tests.chaos.powercut.recording import Orders
from tests.chaos.powercut.run import run
from tests.support.servers import needed

pytestmark = pytest.mark.slow

IMAGES = 100


@pytest.fixture(autouse=True)
def _compiler():
    needed("gcc")


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_after_a_power_cut_all_that_was_acknowledged_is_there(store):
    result = run(Orders(store, seed=7, changes=8, sessions=4), IMAGES)
    print(f"{result.images} images at {result.points} moments, {result.acknowledged} changes acknowledged")
    assert [fault.wrong for fault in result.faults] == []
    assert result.images > 0.6 * IMAGES
    assert result.acknowledged > 100


@pytest.mark.parametrize("name", ["synchronous-normal", "no-sync-of-shards"])
def test_a_sync_that_is_left_out_is_found(name):
    defect = all_defects()[name]
    result = run(Orders(defect.store, defect.seed, changes=8, sessions=4, defect=name), IMAGES // 2)
    assert result.lost
