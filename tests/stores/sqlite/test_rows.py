"""A row that is not what was saved is an error of that state; it is never answered, and never hides a save."""

import contextlib
import random

import pytest

from receiver.problems import StoreDamaged
from receiver.states import Instant
from receiver.stores import open_store
from receiver.stores.copying import compare, copy
from receiver.stores.sqlite.driver import sqlite3
from receiver.stores.sqlite.schema import STEPS
from tests.support.states import OTHER, TENANT, a_state, uid

CHANGES = (
    "id = '00000000-0000-0000-0000-00000000000b'",
    f"tenant = '{OTHER}'",
    f"parent = '{OTHER}'",
    "flow = replace(flow, '6', '7')",
    "flow_version = replace(flow_version, '6', '7')",
    "is_done = 1",
    "current_map_element = 'x'",
    "current_user = 'x'",
    "created_at = replace(created_at, '2026', '2027')",
    "updated_at = replace(updated_at, '2026', '2027')",
    "updated_second = updated_second + 65536",
    "updated_nanosecond = 1",
    "expires_at = '2030-01-01T00:00:00Z'",
    "expires_second = 5",
    "content = 'x'",
    "content_crc32 = content_crc32 + 1",
    "sealing_key = 'x'",
    "row_crc32 = row_crc32 + 1",
)
NEWER = "2027-01-01T00:00:00Z"


def changed(store, sql, *values):
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as connection:
        return connection.execute(sql, values).fetchall()


def in_the_index_only(store, old, new):
    """Change the bytes ``old`` to ``new`` in the pages of the key's index, and nowhere else."""
    root = changed(store, "select rootpage from sqlite_master where name = 'sqlite_autoindex_states_1'")[0][0]
    store.close()
    size = 4096
    with open(store.path, "r+b") as file:
        file.seek((root - 1) * size)
        page = file.read(size)
        assert page[0] == 10, "the index has one page"
        assert page.count(old) == 1
        file.seek((root - 1) * size)
        file.write(page.replace(old, new))


@pytest.mark.case("G10")
@pytest.mark.parametrize("change", CHANGES)
def test_every_field_of_a_row_is_covered(store, change):
    store.save(TENANT, [a_state(10), a_state(12)], None)
    changed(store, f"update states set {change} where id = ?", uid(10))
    if not change.startswith(("id", "tenant")):  # SQL changes the index with these, so that the state is gone
        with pytest.raises(StoreDamaged, match=uid(10)):
            store.find(TENANT, uid(10))
    damages = []
    assert [state.id for state in store.scan(on_damage=damages.append)] == [uid(12)]
    assert len(damages) == 1
    assert store.find(TENANT, uid(12)) == a_state(12)


@pytest.mark.case("G10")
@pytest.mark.parametrize("change", [one for one in CHANGES if not one.startswith(("id", "tenant"))])
@pytest.mark.parametrize("updated", [NEWER, "2025-01-01T00:00:00Z"])
def test_a_save_over_a_damaged_row_heals_it_or_is_refused(store, change, updated):
    store.save(TENANT, [a_state(10)], None)
    changed(store, f"update states set {change}")
    newer = a_state(10, updated)
    is_content = change.startswith("content =")
    try:
        effect = store.save(TENANT, [newer], None)
    except StoreDamaged as refused:
        assert "delete it" in refused.cause
        store.delete(TENANT, [uid(10)], None)
        assert store.save(TENANT, [newer], None).stored == 1
        assert store.find(TENANT, uid(10)) == newer
        return
    if updated == NEWER:
        assert effect.stored == 1
        assert store.find(TENANT, uid(10)) == newer
    else:  # only where its age is known can a save be older
        assert is_content
        assert effect.stored == 0


def test_parent_and_creation_keep_their_first_values_with_a_checksum_that_fits(store):
    store.save(TENANT, [a_state(10, parent=OTHER)], None)
    later = a_state(10, NEWER, parent=uid(5), created_at=Instant.parse("2020-01-01T00:00:00Z"))
    assert store.save(TENANT, [later], None).stored == 1
    found = store.find(TENANT, uid(10))
    assert (found.parent, found.created_at, found.content) == (OTHER, a_state().created_at, later.content)


@pytest.mark.case("G10")
def test_an_entry_of_the_index_that_leads_to_another_row_is_damage(store):
    first, second = a_state(10, parent=uid(7)), a_state(12)
    store.save(TENANT, [first, second], None)
    changed(store, "update states set row_crc32 = null")  # as a version before wrote them
    entry = (TENANT + uid(12)).encode()
    in_the_index_only(store, entry + b"\x02", entry + b"\x01")  # the first row instead of the second
    with pytest.raises(StoreDamaged, match="another row"):
        store.find(TENANT, uid(12))
    assert store.find(TENANT, uid(10)) == first


@pytest.mark.case("G10")
def test_a_damaged_id_in_the_index_is_an_error_of_that_state_and_no_404(store):
    store.save(TENANT, [a_state(number) for number in range(10, 60)], None)
    in_the_index_only(store, (TENANT + uid(30)).encode(), (TENANT + uid(30)[:-1] + "X").encode())
    for number in range(10, 60):
        if number == 30:
            for call in (lambda: store.find(TENANT, uid(30)), lambda: store.delete(TENANT, [uid(30)], None)):
                with pytest.raises(StoreDamaged, match="reindex"):
                    call()
        else:  # also those that a search for them misses because it meets the damaged entry
            assert store.find(TENANT, uid(number)) == a_state(number)
    assert store.find(TENANT, uid(500)) is None
    changed(store, "reindex")
    assert store.find(TENANT, uid(30)) == a_state(30)


@pytest.mark.case("G10")
def test_flipped_bits_of_the_file_are_never_answered_as_content_or_as_missing(store):
    states = [a_state(random.Random(number).getrandbits(128), content="x" * 700) for number in range(80)]
    store.save(TENANT, states, None)
    store.close()
    whole, flips = store.path.read_bytes(), random.Random(15)
    for _ in range(60):
        data, bit = bytearray(whole), flips.randrange(4096 * 8, len(whole) * 8)
        data[bit // 8] ^= 1 << bit % 8
        store.path.write_bytes(data)
        again = open_store(f"sqlite:///{store.path}", 1)
        for state in states:
            with contextlib.suppress(StoreDamaged):
                assert again.find(TENANT, state.id) == state, f"bit {bit}"
        again.close()


def test_rows_of_an_older_version_are_read_and_get_a_checksum_with_their_next_save(store, tmp_path):
    store.save(TENANT, [a_state(10), a_state(12)], None)
    store.close()
    changed(store, "alter table states drop column row_crc32")
    changed(store, "delete from _sqlite_migrations where name = ?", STEPS[3])
    again = open_store(f"sqlite:///{store.path}", 1)
    assert list(again.scan()) == [a_state(10), a_state(12)]
    again.save(TENANT, [a_state(10, NEWER)], None)
    counts = changed(store, "select id, row_crc32 is null from states order by id")
    assert counts == [(uid(10), 0), (uid(12), 1)]
    with contextlib.closing(open_store(f"sqlite:///{tmp_path}/copy.db", 1)) as target:
        assert copy(again, target, None, lambda: None) == {TENANT: 2}
        assert all(one.is_complete for one in compare(again, target, None, lambda: None))
    again.close()


def test_replaced_contents_have_a_checksum_that_fits(store):
    old, new = a_state(10), a_state(10, content="sealed")
    store.save(TENANT, [old], None)
    assert store.replace_content(TENANT, [(old, new)]) == 1
    assert store.find(TENANT, uid(10)) == new
