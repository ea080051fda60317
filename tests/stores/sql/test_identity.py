"""Which store a database server holds: another one, or none, is refused where STORAGE_STORE_ID names one."""

import contextlib
import json
import multiprocessing
import signal
import uuid

import pytest

from receiver.problems import StoreMisplaced, StoreUnavailable
from receiver.stores import open_store
from tests.support import servers
from tests.support.commands import receiver
from tests.support.servers import needed
from tests.support.sql import TIMEOUT
from tests.support.states import TENANT, a_receipt, a_state, uid

pytestmark = pytest.mark.slow
NONE = "holds no store with an id, but STORAGE_STORE_ID names .*receiver store init"


def opened(url, **more):
    return contextlib.closing(open_store(url, TIMEOUT, **more))


def refused(call, match):
    with pytest.raises(StoreMisplaced, match=match):
        call()


def test_the_right_store_is_served_and_another_or_an_empty_one_is_not(server, url):
    with opened(url) as store:
        store.save(TENANT, [a_state()], None)
        id = store.mark().store
    with opened(url, store_id=id) as store:
        assert store.find(TENANT, uid(10)) == a_state()
        store.ping()
    wrong = str(uuid.uuid4())
    for create in (True, False):
        with opened(url, store_id=wrong, create=create) as store:
            for call in (store.prepare, store.ping, lambda: store.find(TENANT, uid(10))):
                refused(call, f"holds the store {id}, but STORAGE_STORE_ID names {wrong}")
    database = server.new_database()
    with opened(server.url(database), store_id=id) as store:
        for call in (store.prepare, store.ping, lambda: store.save(TENANT, [a_state()], a_receipt())):
            refused(call, NONE)
    with opened(server.url(database), create=False) as store, pytest.raises(StoreUnavailable, match="are missing"):
        store.prepare()  # nothing was made


def test_init_makes_the_store_that_is_named_and_refuses_where_one_is(url):
    wanted = str(uuid.uuid4())
    with opened(url, store_id=wanted) as store:
        refused(store.prepare, NONE)
        assert store.init().store == wanted
        store.save(TENANT, [a_state()], None)
        refused(store.init, f"holds the store {wanted}")
        before = store.mark()
    with opened(url) as store:
        after = store.accept()
        assert (after.store, after.generation) == (wanted, before.generation + 1)
        assert after.token != before.token
        assert store.find(TENANT, uid(10)) == a_state()


def test_accept_makes_no_store(url):
    with opened(url) as store, pytest.raises(StoreUnavailable, match="are missing"):
        store.accept()


@pytest.mark.parametrize("start", [servers.postgresql, servers.mariadb])
def test_a_running_receiver_refuses_the_server_that_another_store_took_the_place_of(start):
    if start is servers.mariadb:
        needed("mariadbd", "mariadb-install-db")
    with start() as own:
        database = own.new_database()
        with opened(own.url(database)) as store:
            store.save(TENANT, [a_state()], None)
            id = store.mark().store
        own.stop(signal.SIGKILL)
        with opened(own.url(database), store_id=id, create=False) as running:
            with pytest.raises(StoreUnavailable):
                running.ping()  # down at the start: nothing is known yet
            own.start()
            assert running.find(TENANT, uid(10)) == a_state()
            _empty(own, database)
            for call in (running.ping, lambda: running.find(TENANT, uid(10))):
                refused(call, NONE)
            with opened(own.url(database)) as other:
                other.prepare()
            for call in (running.ping, lambda: running.save(TENANT, [a_state()], a_receipt())):
                refused(call, "but STORAGE_STORE_ID names")


def _empty(server, database):
    """Replace ``database`` by an empty one, which ends its connections."""
    if isinstance(server, servers.Postgres):
        server.execute(f"drop database {database} with (force)")
        server.execute(f"create database {database} owner receiver template template0 encoding 'UTF8'")
    else:
        server.execute(f"drop database {database}")
        server.execute(f"create database {database} character set utf8mb4")
        server.stop(signal.SIGKILL)  # a connection outlasts its database there
        server.start()


def test_serve_ends_with_78_and_the_remedy(server, url, tmp_path):
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    wanted = str(uuid.uuid4())
    environ = {"DATABASE_URL": url, "STORAGE_STORE_ID": wanted}
    ran = receiver("serve", cwd=tmp_path, **environ)
    assert ran.returncode == 78
    assert "DATABASE_URL: " in ran.stderr
    assert "holds no store with an id" in ran.stderr
    assert "receiver store init" in ran.stderr
    made = receiver("store", "init", "--json", cwd=tmp_path, **environ)
    assert json.loads(made.stdout)["id"] == wanted, made.stderr
    shown = receiver("store", "id", "--json", cwd=tmp_path, **environ)
    assert (shown.returncode, json.loads(shown.stdout)[0]["id"]) == (0, wanted)
    assert wanted in receiver("doctor", cwd=tmp_path, **environ).stdout
    other = receiver("store", "accept", cwd=tmp_path, **environ | {"STORAGE_STORE_ID": uid(1)})
    assert other.returncode == 1
    assert f"set it to {wanted}" in other.stderr


def _start(url, begin, said):
    begin.wait()
    with contextlib.closing(open_store(url, 30)) as store:
        store.prepare()
        said.put(store.mark().store)


def test_processes_that_start_at_once_agree_on_the_identity(url):
    context = multiprocessing.get_context("spawn")
    begin, said = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_start, args=(url, begin, said)) for _ in range(8)]
    for process in processes:
        process.start()
    ids = {said.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert len(ids) == 1


def test_a_copy_has_an_identity_of_its_own(server, url, tmp_path):
    source = f"sqlite:///{tmp_path}/states.db"
    with opened(source) as store:
        store.save(TENANT, [a_state()], None)
        id = store.mark().store
    ran = receiver("store", "copy", "--from", source, "--to", url, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    with opened(url) as store:
        assert store.mark().store != id
