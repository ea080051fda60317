"""Damage to the store of files: every flipped bit is found and harms one state only."""

import hashlib
import shutil

import pytest

from receiver.idempotency import Effect
from receiver.problems import StoreDamaged
from receiver.states import NANOSECONDS
from tests.support.filesystem import FUTURE, NEW, OLD, PAST, file_of
from tests.support.platform_client import assert_problem, loaded
from tests.support.states import NOW, OTHER, TENANT, a_receipt, a_state, uid

pytestmark = pytest.mark.slow


@pytest.mark.case("G10")
def test_every_flipped_bit_and_every_cut_is_found_and_harms_that_state_only(store, root):
    store.save(TENANT, [a_state(content="secret content"), a_state(11)], None)
    whole = file_of(root, uid(10)).read_bytes()
    damages = [whole[:length] for length in range(len(whole))] + [whole + b"x", bytes(len(whole))]
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damages.append(flipped)
    for damage in damages:
        file_of(root, uid(10)).write_bytes(damage)
        with pytest.raises(StoreDamaged) as told:
            store.find(TENANT, uid(10))
        assert "secret" not in told.value.cause
    assert store.find(TENANT, uid(11)) == a_state(11)
    file_of(root, uid(10)).write_bytes(whole)
    assert store.find(TENANT, uid(10)).content.text == "secret content"


@pytest.mark.case("G10")
def test_a_file_that_lies_where_another_belongs_is_damage(store, root):
    store.save(TENANT, [a_state(10), a_state(11), a_state(12)], None)
    store.save(OTHER, [a_state(12, tenant=OTHER)], None)
    first, second = file_of(root, uid(10)), file_of(root, uid(11))
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)
    shutil.copy(file_of(root, uid(12)), file_of(root, uid(12), OTHER))
    for tenant, id in ((TENANT, uid(10)), (TENANT, uid(11)), (OTHER, uid(12))):
        with pytest.raises(StoreDamaged):
            store.find(tenant, id)
    assert store.find(TENANT, uid(12)) == a_state(12)


@pytest.mark.case("G10")
def test_damaged_content_is_answered_with_500_until_a_newer_state_replaces_it(store, root, platform, state, tenant):
    other = state | {"id": uid(77)}
    platform.save(state, other)
    path = file_of(root, state["id"], tenant)
    path.write_bytes(path.read_bytes()[:-1])
    assert_problem(platform.load(state["id"]), 500)
    assert loaded(platform, other["id"]) == other["content"]
    assert platform.save(state | {"updatedAt": "2031-01-01T00:00:00Z"}).status == 204
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("G10")
def test_a_state_whose_age_cannot_be_read_is_not_purged_but_any_save_or_delete_of_it_repairs_it(store, root, caplog):
    store.save(TENANT, [a_state(10, NEW, expires_at=PAST), a_state(11, expires_at=PAST)], None)
    file_of(root, uid(10)).write_bytes(b"")
    with pytest.raises(StoreDamaged):
        list(store.summaries())
    assert store.purge(NOW * NANOSECONDS) == 1
    saved = a_state(10, OLD, parent=uid(5))
    assert store.save(TENANT, [a_state(12), saved], a_receipt()) == Effect(stored=2)
    assert store.find(TENANT, uid(10)) == saved
    assert [uid(10) in line.getMessage() for line in caplog.records] == [True]
    file_of(root, uid(10)).write_bytes(b"")
    assert store.delete(TENANT, [uid(10)], None) == Effect(stored=1)
    assert store.find(TENANT, uid(10)) is None


def test_a_summary_needs_no_content_but_notices_a_cut(store, root):
    store.save(TENANT, [a_state(content="x" * 1000, expires_at=FUTURE)], None)
    path = file_of(root, uid(10))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"y")
    summary = next(store.summaries(TENANT))
    assert (summary.id, summary.size, summary.expires_at) == (uid(10), 1000, FUTURE)
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreDamaged):
        next(store.summaries(TENANT))


def test_a_damaged_receipt_neither_frees_its_jti_nor_harms_another(store, root):
    store.save(TENANT, [a_state()], a_receipt())
    [path] = (root / TENANT / ".receipts").iterdir()
    path.write_bytes(path.read_bytes().replace(b"POST", b"GOST"))
    with pytest.raises(StoreDamaged):
        store.was_done(TENANT, a_receipt())
    with pytest.raises(StoreDamaged):
        store.delete(TENANT, [uid(10)], a_receipt(method="DELETE"))
    assert store.find(TENANT, uid(10)) == a_state()
    assert store.save(TENANT, [], a_receipt("two", now=NOW + 1000)).jti_was == "new"
    assert not path.exists()


def test_a_receipt_that_lies_where_another_belongs_is_damage(store, root):
    store.save(TENANT, [a_state()], a_receipt())
    [path] = (root / TENANT / ".receipts").iterdir()
    path.rename(path.with_name(hashlib.sha256(b"two").hexdigest()))
    with pytest.raises(StoreDamaged):
        store.was_done(TENANT, a_receipt("two"))
    assert not store.was_done(TENANT, a_receipt("three"))
