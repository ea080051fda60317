"""Files of the store that bear a right checksum and hold what no receiver wrote: damage of one tenant, and no more."""

import json
import zlib

import pytest
from sqlite_utils.utils import sqlite3  # the library that the store uses: two in one process undo each other's locks

from receiver.problems import ReplayRefused, StoreDamaged
from receiver.states import NANOSECONDS, Instant
from receiver.stores import open_store
from receiver.stores.filesystem import FilesystemStore, formats
from tests.support.filesystem import files
from tests.support.platform_client import assert_problem
from tests.support.states import NOW, OTHER, TENANT, a_receipt, a_state, uid

PAST = Instant.parse("2020-01-01T00:00:00Z")
RECORD = {"token": "0" * 16, "states": {}, "deleted": [], "receipts": []}
RECEIPT = {"jti": "j", "method": "POST", "digest": "00" * 32, "expires": NOW + 60}
UP = f"../{OTHER}/{uid(20)[:2]}/{uid(20)}"
STRANGE_RECORDS = {
    "deleted elsewhere": {"deleted": [UP]},
    "deleted absolute": {"deleted": ["/etc/passwd"]},
    "deleted capital": {"deleted": [uid(20)[:-1] + "A"]},
    "deleted number": {"deleted": [1]},
    "deleted lists": {"deleted": [[uid(1)]]},
    "deleted object": {"deleted": {uid(1): 1}},
    "deleted null": {"deleted": None},
    "states elsewhere": {"states": {UP: 1}},
    "states list": {"states": [uid(1)]},
    "states text": {"states": {uid(1): "1"}},
    "states true": {"states": {uid(1): True}},
    "in both": {"states": {uid(1): 1}, "deleted": [uid(1)]},
    "token elsewhere": {"token": "/../../" + OTHER + "/x"},
    "token number": {"token": 1},
    "token long": {"token": "0" * 400},
    "receipts object": {"receipts": {}},
    "receipt text": {"receipts": ["x"]},
    "receipt less": {"receipts": [{"jti": "j"}]},
    "receipt more": {"receipts": [RECEIPT | {"more": 1}]},
    "receipt jti": {"receipts": [RECEIPT | {"jti": 1}]},
    "receipt method": {"receipts": [RECEIPT | {"method": None}]},
    "receipt digest": {"receipts": [RECEIPT | {"digest": "zz"}]},
    "receipt expires": {"receipts": [RECEIPT | {"expires": "soon"}]},
    "more": {"more": 1},
}
DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def store(store):
    store.save(TENANT, [a_state(10, expires_at=PAST)], None)
    store.save(OTHER, [a_state(20, tenant=OTHER), a_state(21, tenant=OTHER, expires_at=PAST)], None)
    return store


def lay(root, line, tenant=TENANT):
    """Put ``line`` where the record of a change of ``tenant`` that was committed lies."""
    path = root / tenant / ".change" / "record"
    path.write_bytes(line)
    return path


def line_of(body: bytes) -> bytes:
    """Return the object that begins as ``body`` with a right checksum."""
    return body + b', "crc32": "%08x"}\n' % zlib.crc32(body)


STRANGE_LINES = {name: formats.to_line(RECORD | change) for name, change in STRANGE_RECORDS.items()}
STRANGE_LINES |= {"deep": line_of(DEEP), "less": formats.to_line({"deleted": [UP]}), "list": line_of(b"[1")}


@pytest.mark.case("I05")
@pytest.mark.parametrize("name", STRANGE_LINES)
def test_a_record_that_no_receiver_wrote_is_damage_of_that_tenant_and_touches_nothing(store, root, name):
    lay(root, STRANGE_LINES[name])
    before = files(root)
    again = FilesystemStore(str(root), 5)
    again.prepare()
    for call in (
        lambda: again.find(TENANT, uid(10)),
        lambda: again.was_done(TENANT, a_receipt()),
        lambda: again.save(TENANT, [a_state(10)], a_receipt()),
        lambda: again.delete(TENANT, [uid(10)], a_receipt()),
        lambda: list(again.scan(TENANT)),
        lambda: list(again.summaries()),
    ):
        with pytest.raises(StoreDamaged, match=rf"{TENANT}/\.change/record is not the record"):
            call()
    assert files(root) == before


@pytest.mark.case("I05")
def test_other_tenants_go_on_as_if_nothing_were_wrong(store, root, caplog):
    lay(root, STRANGE_LINES["deleted elsewhere"])
    damages = []
    assert [one.id for one in store.scan(None, None, damages.append)] == [uid(20), uid(21)]
    assert [one.id for one in store.summaries(None, damages.append)] == [uid(20), uid(21)]
    assert [TENANT in damage.cause for damage in damages] == [True, True]
    assert store.purge(NOW * NANOSECONDS) == 1
    assert f"nothing of tenant {TENANT} is purged" in caplog.text
    assert store.save(OTHER, [a_state(22, tenant=OTHER)], a_receipt()).stored == 1
    assert store.delete(OTHER, [uid(22)], None).stored == 1
    assert store.find(OTHER, uid(20)).id == uid(20)
    (root / TENANT / ".change" / "record").unlink()
    assert store.purge(NOW * NANOSECONDS) == 1


@pytest.mark.case("I05")
def test_a_receiver_answers_500_and_calls_it_damage(store, root, platform, tenant, state, caplog):
    assert platform.save(state).status == 204
    lay(root, STRANGE_LINES["deleted elsewhere"], tenant)
    for answer in (platform.load(state["id"]), platform.save(state), platform.delete([state["id"]])):
        assert_problem(answer, 500)
    assert "a defect" not in caplog.text and "StoreDamaged" in caplog.text


@pytest.mark.parametrize(
    "change", [one for name, one in STRANGE_RECORDS.items() if name.startswith(("receipt", "more"))]
)
def test_a_receipt_that_no_receiver_wrote_is_damage_and_its_jti_is_not_free(store, root, change):
    receipt = a_receipt()
    store.save(TENANT, [a_state(10)], receipt)
    (path,) = (root / TENANT / ".receipts").iterdir()
    path.write_bytes(formats.to_line(RECORD | {"receipts": [RECEIPT | {"jti": receipt.jti}]} | change))
    for call in (lambda: store.was_done(TENANT, receipt), lambda: store.save(TENANT, [a_state(10)], receipt)):
        with pytest.raises(StoreDamaged, match="receipt"):
            call()
    assert store.save(TENANT, [a_state(11)], a_receipt("another")).stored == 1


@pytest.mark.parametrize(
    "change",
    [
        {"parent": "../x"},
        {"parent": []},
        {"flow": None},
        {"flowVersion": "x"},
        {"currentUser": {"a": 1}},
        {"currentMapElement": 7},
        {"isDone": "yes"},
        {"createdAt": 1},
        {"updatedAt": None},
        {"expiresAt": 0},
        {"contentBytes": "4"},
        {"contentBytes": True},
        {"contentBytes": -1},
        {"contentCrc32": 0},
        {"sealingKey": ["k"]},
        {"sealingKey": ""},
        {"sealingKey": None},
    ],
)
def test_a_state_whose_line_no_receiver_wrote_is_damage_of_that_state(store, root, change):
    path = root / TENANT / uid(10)[:2] / f"{uid(10)}.state"
    line, content = path.read_bytes().split(b"\n", 1)
    fields = {name: value for name, value in json.loads(line).items() if name != "crc32"}
    path.write_bytes(formats.to_line(fields | change) + content)
    damages = []
    for call in (
        lambda: store.find(TENANT, uid(10)),
        lambda: list(store.summaries(TENANT)),
    ):
        with pytest.raises(StoreDamaged, match=uid(10)):
            call()
    assert list(store.scan(TENANT, None, damages.append)) == [] and len(damages) == 1
    assert store.find(OTHER, uid(20))
    assert store.save(TENANT, [a_state(10)], None).stored == 1
    assert store.find(TENANT, uid(10)) == a_state(10)


@pytest.mark.parametrize("line", [line_of(DEEP), line_of(b"[1")], ids=["deep", "list"])
def test_a_state_whose_line_is_no_object_is_damage_of_that_state(store, root, line):
    (root / TENANT / uid(10)[:2] / f"{uid(10)}.state").write_bytes(line)
    with pytest.raises(StoreDamaged, match=uid(10)):
        store.find(TENANT, uid(10))


@pytest.mark.parametrize(
    "kept",
    [
        {"platform": {"k": "yesterday"}},
        {"platform": {"k": None}},
        {"platform": ["k"]},
        {"": {"k": 1}},
        {"x\n": {"k": 1}},
    ],
)
def test_uses_of_keys_that_no_receiver_wrote_are_found_anew(store, root, kept, caplog):
    (root / "key-uses").write_bytes(formats.to_line(kept))
    assert store.key_uses() == {}
    assert "is written again" in caplog.text
    store.note_key_uses({("platform", "k"): 5})
    assert store.key_uses() == {("platform", "k"): 5}


def test_a_mark_that_is_deep_is_no_mark(store, root):
    (root / "format").write_text("[" * 8000)
    with pytest.raises(Exception, match="is not the mark of a store"):
        FilesystemStore(str(root), 5).check_location()


# SQLite keeps what it is given, of any type


@pytest.mark.parametrize("digest", ["text", 1 << 40, 5.5])
def test_a_receipt_of_another_type_in_a_database_is_damage(tmp_path, digest):
    store = open_store(f"sqlite:///{tmp_path}/states.db", 5)
    store.prepare()
    receipt = a_receipt()
    store.save(TENANT, [a_state(10)], receipt)
    with sqlite3.connect(tmp_path / "states.db") as connection:
        connection.execute("update receipts set digest = ?", [digest])
    connection.close()
    for call in (lambda: store.was_done(TENANT, receipt), lambda: store.save(TENANT, [a_state(10)], receipt)):
        with pytest.raises(StoreDamaged):
            call()
    with pytest.raises(ReplayRefused):
        store.save(OTHER, [a_state(10, tenant=OTHER)], a_receipt("o"))
        store.save(OTHER, [a_state(10, tenant=OTHER)], a_receipt("o", digest=b"e" * 32))
    store.close()
