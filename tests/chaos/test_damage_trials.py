"""Damage to a store on a disk costs 5xx or a refused start, never a 404 or a wrong content for what was acknowledged."""

import os

import pytest

from tests.chaos.damage.kinds import RESTART, RUNNING, UNDETECTABLE, all_damage
from tests.chaos.damage.trial import try_out

pytestmark = pytest.mark.slow

KINDS = {(damage.store, damage.name): damage for damage in all_damage()}
SAMPLE = [
    ("sqlite", "database emptied", RESTART),
    ("sqlite", "-wal removed", RUNNING),
    ("sqlite", "bit 0 flipped in -wal", RESTART),
    ("sqlite", "all replaced by its older copy", RESTART),
    ("sqlite", "marker replaced by another store's", RESTART),
    ("file", "two states swapped", RUNNING),
    ("file", "bit 0 flipped in a state", RESTART),
    ("file", "bit flipped in .receipts/*", RUNNING),
    ("file", "format removed", RESTART),
    ("file", "folder replaced by another store", RESTART),
]
ALL = [(*kind, when) for kind, damage in KINDS.items() for when in damage.when]


@pytest.mark.case("G10", "I08")
@pytest.mark.parametrize(("store", "name", "when"), ALL if "CHAOS" in os.environ else SAMPLE)
def test_damage_is_never_answered_with_404_or_another_content(store, name, when, tmp_path):
    outcome = try_out(KINDS[store, name], when, tmp_path / "trial")
    print(outcome)
    assert not outcome.is_bad, str(outcome)
    assert sum(outcome.loads.values()) > 0 or outcome.starts == ["refused (78)"]


def test_what_cannot_be_noticed_is_among_the_kinds():
    assert {name for store, name in KINDS if store == "file"} >= UNDETECTABLE


@pytest.mark.case("G10")
def test_a_trial_finds_what_is_lost_and_what_is_older(tmp_path):
    """The proof of the trial: damage that nobody can notice is seen by it all the same."""
    lost = try_out(KINDS["file", "tenant's folder removed"], RESTART, tmp_path / "lost")
    older = try_out(KINDS["file", "tenant's folder replaced by its older copy"], RESTART, tmp_path / "older")
    assert lost.loads["404"] > 0
    assert older.loads["wrong"] > 0
