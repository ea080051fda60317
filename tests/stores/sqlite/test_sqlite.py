"""What is particular to the embedded store: its file, its locks, and what becomes of damage."""

import contextlib
import os
import re
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlite_utils.utils import sqlite3

from receiver.problems import StoreDamaged, StoreFull, StoreMisplaced, StoreUnavailable
from receiver.stores import open_store
from receiver.stores.urls.store_url import parse
from tests.support.platform_client import assert_problem, loaded
from tests.support.states import TENANT, a_receipt, a_state, uid

DAMAGES = ("content = x'ff'", "content = cast(x'ff' as text)", "updated_at = 'x'", "created_at = 5", "content = 7")
NO_URLS = (
    "sqlite://",
    "sqlite:///",
    "sqlite:///:memory:",
    "sqlite:///x?mode=ro",
    "oracle://h/d",
    "",
    "x",
    "jdbc:sqlite:",
)


def test_the_sqlite_in_use_has_no_wal_reset_bug():
    assert sqlite3.sqlite_version_info >= (3, 51, 3)


def test_every_commit_is_synchronous_and_the_file_is_for_its_owner_only(store):
    store.save(TENANT, [a_state()], None)
    connection = store._file.connection()
    assert connection.execute("pragma synchronous").fetchone()[0] == 2
    assert connection.execute("pragma journal_mode").fetchone()[0] == "wal"
    for path in store.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_lock_that_is_held_too_long_is_an_outage_and_nothing_is_lost(store, platform, state):
    platform.save(state)
    store.timeout = 0.2
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("begin immediate")
    began = time.monotonic()
    answer = platform.save(state | {"updatedAt": "2030-01-01T00:00:00Z", "content": "new"})
    assert time.monotonic() - began < 2
    assert_problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert loaded(platform, state["id"]) == state["content"]
    assert platform.health().status == 200
    other.execute("rollback")
    other.close()
    assert platform.save(state | {"updatedAt": "2030-01-01T00:00:00Z", "content": "new"}).status == 204
    assert loaded(platform, state["id"]) == "new"


def test_a_file_that_was_removed_is_an_outage_and_no_empty_store(store, platform, state, tmp_path):
    platform.save(state)
    store.path.rename(tmp_path / "elsewhere.db")
    assert_problem(platform.save(state), 503)
    assert_problem(platform.load(state["id"]), 503)
    assert_problem(platform.health(), 503)
    (tmp_path / "elsewhere.db").rename(store.path)
    assert loaded(platform, state["id"]) == state["content"]


def test_a_file_that_was_emptied_is_no_empty_store(store, platform, state):
    platform.save(state)
    store.close()
    os.truncate(store.path, 0)
    for answer in (platform.load(state["id"]), platform.save(state), platform.health()):
        assert_problem(answer, 503)


@pytest.mark.case("I08")
@pytest.mark.parametrize("ending", ["-wal", "-shm"])
def test_no_save_is_acknowledged_once_the_log_was_removed_and_a_restart_finds_every_one_before(
    store, platform, state, ending
):
    platform.save(state)
    os.unlink(f"{store.path}{ending}")
    later = state | {"id": uid(77)}
    for answer in (platform.save(later), platform.load(state["id"]), platform.load(later["id"]), platform.health()):
        assert_problem(answer, 503)
    store.close()
    with contextlib.closing(open_store(f"sqlite:///{store.path}", 1)) as again:
        assert again.find(state["tenant"], state["id"]).content.text == state["content"]
        assert again.find(state["tenant"], uid(77)) is None


_KILLED = """
import os, signal, sys
from receiver.problems import StoreUnavailable
from receiver.stores import open_store
from tests.support.states import TENANT, a_state
store = open_store(sys.argv[1], 2)
store.save(TENANT, [a_state(1)], None)
if sys.argv[2] == "removed before the next call":
    os.unlink(f"{store.path}-wal")
    try:
        store.save(TENANT, [a_state(2)], None)
    except StoreUnavailable:
        print("refused", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_store(path, when) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _KILLED, f"sqlite:///{path}", when], capture_output=True, text=True, check=False
    )


@pytest.mark.case("I08")
def test_a_process_that_is_killed_after_its_log_was_removed_has_lost_nothing(tmp_path):
    path = tmp_path / "states.db"
    assert killed_store(path, "removed before the next call").stdout == "refused\n"
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as again:
        assert [one.id for one in again.scan()] == [uid(1)]


@pytest.mark.case("I08")
def test_a_start_is_refused_when_the_log_of_a_killed_process_is_missing(tmp_path):
    path = tmp_path / "states.db"
    killed_store(path, "removed while stopped")
    (tmp_path / "states.db-wal").rename(tmp_path / "aside")
    for _ in range(2):
        with pytest.raises(StoreMisplaced, match="put the right files back"):
            open_store(f"sqlite:///{path}", 1).prepare()
    (tmp_path / "aside").rename(f"{path}-wal")
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as again:
        assert again.find(TENANT, uid(1)) == a_state(1)


@pytest.mark.case("I08")
def test_a_process_that_starts_while_others_have_a_removed_log_open_makes_no_new_one(store):
    store.save(TENANT, [a_state(1)], None)
    os.unlink(f"{store.path}-wal")
    with pytest.raises(StoreUnavailable):
        store.find(TENANT, uid(1))  # copies the log into the file
    script = f"from receiver.stores import open_store; open_store('sqlite:///{store.path}', 1).prepare()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    with pytest.raises(StoreMisplaced, match="stop every process"):
        open_store(f"sqlite:///{store.path}", 1).prepare()  # in this process
    assert "StoreMisplaced" in ended.stderr
    assert "stop every process of the receiver" in ended.stderr
    assert not os.path.exists(f"{store.path}-wal")


@pytest.mark.case("I08")
def test_a_log_that_is_removed_during_a_commit_costs_its_acknowledgement(store, monkeypatch):
    store.save(TENANT, [a_state(1)], None)
    writer = store._file.writer()

    class Removing:
        in_transaction = False

        def execute(self, sql, *rest):
            found = writer.execute(sql, *rest)
            if sql == "commit":
                os.unlink(f"{store.path}-wal")
            return found

    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable, match="was removed"):
        patch.setattr(store._file, "writer", Removing)
        store.save(TENANT, [a_state(2)], None)


@pytest.mark.case("I08")
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_start_on_a_store_that_was_emptied_is_refused_and_one_on_a_new_empty_file_is_not(tmp_path, how):
    path = tmp_path / "states.db"
    if how == "killed":
        killed_store(path, "removed while stopped")
        Path(f"{path}-marker").unlink()  # the log tells it, too
    else:
        with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as store:
            store.save(TENANT, [a_state(1)], None)
    os.truncate(path, 0)
    for _ in range(2):
        with pytest.raises(StoreMisplaced, match="restore a backup"):
            open_store(f"sqlite:///{path}", 1).prepare()
    for one in tmp_path.iterdir():
        one.unlink()
    path.touch()
    with contextlib.closing(open_store(f"sqlite:///{path}", 1)) as again:
        assert again.find(TENANT, uid(1)) is None


def test_health_asks_the_database_and_not_only_its_file(store, platform):
    assert platform.health().status == 200
    connection = sqlite3.connect(store.path)
    connection.execute("alter table states rename to gone")
    connection.close()
    assert_problem(platform.health(), 503)


def test_a_restored_file_is_taken_up_without_a_restart(store, platform, state, tmp_path):
    platform.save(state)
    connection = sqlite3.connect(store.path)
    connection.execute("vacuum into ?", [str(tmp_path / "backup")])
    connection.close()
    platform.delete([state["id"]])
    store.close()
    for path in store.path.parent.glob("states.db-*"):
        path.unlink()
    (tmp_path / "backup").rename(store.path)
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("G10")
def test_a_flipped_bit_of_content_is_found_and_harms_that_state_only(store, platform, state):
    other = state | {"id": uid(77)}
    platform.save(state, other)
    connection = sqlite3.connect(store.path)
    connection.execute("update states set content = replace(content, 'a', 'b') where id = ?", [state["id"]])
    connection.commit()
    connection.close()
    assert_problem(platform.load(state["id"]), 500)
    assert loaded(platform, other["id"]) == other["content"]
    newer = state | {"updatedAt": "2031-01-01T00:00:00Z"}
    assert platform.save(newer).status == 204
    assert loaded(platform, state["id"]) == state["content"]


@pytest.mark.case("G10")
@pytest.mark.parametrize("change", DAMAGES)
def test_a_damaged_row_is_never_answered_as_content_or_as_missing(store, change):
    store.save(TENANT, [a_state()], None)
    connection = sqlite3.connect(store.path)
    connection.execute(f"update states set {change}")
    connection.commit()
    connection.close()
    with pytest.raises(StoreDamaged):
        store.find(TENANT, uid(10))


@pytest.mark.case("G10")
@pytest.mark.parametrize("damage", ["overwritten", "cut", "emptied"])
def test_a_damaged_file_is_an_error_and_not_an_empty_store(store, damage):
    for number in range(200):
        store.save(TENANT, [a_state(number, content="x" * 5000)], None)
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()
    size = store.path.stat().st_size
    with open(store.path, "r+b") as file:
        if damage == "overwritten":
            file.seek(8192)
            file.write(os.urandom(size // 2))
        else:
            file.truncate(size // 2 if damage == "cut" else 0)
    for ending in ("-wal", "-shm"):
        Path(f"{store.path}{ending}").unlink(missing_ok=True)
    again = open_store(f"sqlite:///{store.path}", 1)
    outcomes = set()
    for number in range(200):
        try:
            found = again.find(TENANT, uid(number))
            outcomes.add("whole" if found and found.content.text == "x" * 5000 else "missing")
        except (StoreDamaged, StoreUnavailable):
            outcomes.add("error")
    assert "error" in outcomes
    assert "missing" not in outcomes


_FILLING = """
import resource, sys
from receiver.stores import open_store
from receiver.problems import Problem
from tests.support.states import TENANT, a_state, uid
store = open_store(sys.argv[1], 2)
store.prepare()
store.save(TENANT, [a_state(1)], None)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
outcomes = []
for number in range(2, 60):
    try:
        store.save(TENANT, [a_state(number, content="x" * 20_000)], None)
        outcomes.append(number)
    except Problem as problem:
        kind = type(problem).__name__
assert outcomes and len(outcomes) < 58, outcomes
assert store.find(TENANT, uid(1)) == a_state(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.save(TENANT, [a_state(99)], None)
assert [state.id for state in store.scan()] == sorted(uid(number) for number in (1, 99, *outcomes))
print(kind)
"""


@pytest.mark.case("G08")
def test_a_file_that_may_not_grow_is_an_error_and_the_process_lives_on(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    ran = subprocess.run(
        [sys.executable, "-c", _FILLING, f"sqlite:///{tmp_path}/small.db"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    assert ran.stdout.strip() in ("StoreFull", "StoreUnavailable")


@pytest.mark.case("G07")
def test_a_full_database_answers_507_keeps_what_it_has_and_heals(store, platform, state):
    platform.save(state)
    connection = store._file.writer()
    pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {pages + 4}")
    big = state | {"id": uid(50), "content": "x" * 500_000}
    assert_problem(platform.save(big), 507)
    assert loaded(platform, state["id"]) == state["content"]
    assert platform.load(uid(50)).status == 404
    connection.execute("pragma max_page_count = 1073741823")
    assert platform.save(big).status == 204


def test_a_place_that_cannot_hold_a_store_is_told(tmp_path):
    (tmp_path / "text.db").write_text("this is no database" * 100)
    for path in ("no/such/folder/x.db", "text.db", "text.db/x.db", "."):
        with pytest.raises(StoreMisplaced, match=re.escape(str(tmp_path))):
            open_store(f"sqlite:///{tmp_path}/{path}", 1).prepare()


def test_a_worker_does_not_make_a_store_where_the_master_left_one(tmp_path):
    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{tmp_path}/x.db", 1, create=False).prepare()
    assert not (tmp_path / "x.db").exists()


def test_a_store_that_is_locked_at_the_start_is_read_and_answers_in_time(store, tmp_path):
    store.save(TENANT, [a_state()], None)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("begin immediate")
    began = time.monotonic()
    late = open_store(f"sqlite:///{store.path}", 0.3)
    late.prepare()
    assert late.find(TENANT, uid(10)) == a_state()
    assert time.monotonic() - began < 0.3
    with pytest.raises(StoreUnavailable):
        late.save(TENANT, [a_state()], None)
    other.execute("rollback")
    other.close()
    late.close()


@pytest.mark.parametrize(
    "url",
    NO_URLS,
)
def test_a_url_that_no_store_can_have_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match=r"^(must|takes) ") as refused:
        parse(url)
    assert "oracle" not in str(refused.value)


def test_urls_of_the_java_service_and_of_sqlalchemy_name_the_same_file():
    assert str(parse("jdbc:sqlite:/data/x.db")) == str(parse("sqlite:////data/x.db")) == "SQLite, /data/x.db"


def test_expired_receipts_do_not_pile_up(store):
    for number in range(100):
        store.save(TENANT, [], a_receipt(str(number), expires=a_receipt().now + 1))
    for number in range(10):
        store.save(TENANT, [], a_receipt(f"later {number}", now=a_receipt().now + 100))
    kept = store._file.connection().execute("select count(*) from receipts").fetchone()[0]
    assert kept == 10


def test_a_full_disk_is_told_apart_from_a_busy_one():
    assert (StoreFull.status, StoreUnavailable.status, StoreDamaged.status) == (507, 503, 500)


def test_a_file_of_a_newer_version_is_left_alone(store):
    store.save(TENANT, [a_state()], None)
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        connection.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('receiver', '9999_later', '')"
        )
        connection.commit()
    with pytest.raises(StoreMisplaced, match="newer than this program"):
        open_store(f"sqlite:///{store.path}", 5).prepare()
