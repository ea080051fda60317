"""``receiver store id``, ``init`` and ``accept``, and what a start says about a store that is not the right one."""

import contextlib
import json
import os
import uuid

import pytest

from receiver.settings import read
from receiver.stores import open_store
from tests.support.commands import receiver
from tests.support.states import OTHER, a_state, uid
from tests.support.store_commands import filled


@pytest.fixture
def environ(tmp_path):
    """The environment of a receiver that keeps OTHER's states in a store of its own."""
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path}/states.db",
        f"STORAGE_TENANT_{OTHER}": f"file://{tmp_path}/own",
        "STORAGE_ADMIN_BIND": "off",
        "STORAGE_BIND": "127.0.0.1:0",
    }


@pytest.fixture
def ids(environ):
    """The ids of both stores, which hold a state each."""
    found = []
    for url, tenant in zip(list(environ.values())[:2], (uid(1), OTHER), strict=True):
        with filled(url, a_state(tenant=tenant)) as store:
            found.append(store.mark().store)
    return found


def run(environ, tmp_path, *words, **more):
    return receiver(*words, cwd=tmp_path, **environ | more)


def test_id_shows_each_store_and_which_one_is_wrong(environ, ids, tmp_path):
    ran = run(environ, tmp_path, "store", "id", "--json")
    assert ran.returncode == 0
    assert [(row["id"], row["verdict"]) for row in json.loads(ran.stdout)] == [(id, "right") for id in ids]
    ran = run(environ, tmp_path, "store", "id", "--json", **{f"STORAGE_STORE_ID_{OTHER}": uid(7)})
    own = json.loads(ran.stdout)[1]
    assert (ran.returncode, own["id"], own["pinned"]) == (1, None, uid(7))
    assert f"holds the store {ids[1]}, but STORAGE_STORE_ID names {uid(7)}" in own["verdict"]
    assert ids[0] in run(environ, tmp_path, "store", "id").stdout
    doctor = run(environ, tmp_path, "doctor").stdout
    assert all(id in doctor for id in ids)


@pytest.mark.case("I08")
def test_a_start_on_an_emptied_store_ends_with_78_and_the_remedy_which_helps(environ, ids, tmp_path):
    backup = (tmp_path / "states.db").read_bytes()
    os.truncate(tmp_path / "states.db", 0)
    for words in (("serve",), ("store", "stats"), ("config",)):
        ran = run(environ, tmp_path, *words)
        assert ran.returncode == 78
        assert f"DATABASE_URL: {tmp_path}/states.db: is empty, but" in ran.stderr
        assert f"the store {ids[0]} was here: put it back" in ran.stderr
    doctor = run(environ, tmp_path, "doctor")
    assert "restore a backup and run: receiver store accept" in doctor.stdout
    refused = run(environ, tmp_path, "store", "accept")
    assert (refused.returncode, "there is no store to accept" in refused.stderr) == (1, True)
    (tmp_path / "states.db").write_bytes(backup)
    accepted = run(environ, tmp_path, "store", "accept")
    assert accepted.returncode == 0, accepted.stderr
    assert accepted.stdout.startswith(f"accepted the store {ids[0]} at ")
    assert run(environ, tmp_path, "store", "stats").returncode == 0


def test_init_makes_a_new_store_for_a_tenant_and_none_where_one_is(environ, ids, tmp_path):
    refused = run(environ, tmp_path, "store", "init", "--tenant", OTHER)
    assert (refused.returncode, f"holds the store {ids[1]}" in refused.stderr) == (1, True)
    (tmp_path / "own").rename(tmp_path / "aside")
    started = run(environ, tmp_path, "serve")
    assert started.returncode == 78
    assert f"`receiver store init --tenant {OTHER}` makes a new store" in started.stderr
    assert f"`receiver store accept --tenant {OTHER}`" in started.stderr
    made = run(environ, tmp_path, "store", "init", "--tenant", OTHER, "--json")
    assert made.returncode == 0, made.stderr
    id = json.loads(made.stdout)["id"]
    assert id not in ids
    with contextlib.closing(open_store(environ[f"STORAGE_TENANT_{OTHER}"], 5, store_id=id)) as store:
        assert list(store.summaries()) == []
    nobody = run(environ, tmp_path, "store", "init", "--tenant", uid(3))
    assert (nobody.returncode, "has no store of its own" in nobody.stderr) == (2, True)


def test_the_store_of_a_tenant_is_pinned_by_a_setting_of_its_own(environ, ids, tmp_path):
    pins = {"STORAGE_STORE_ID": ids[0], f"STORAGE_STORE_ID_{OTHER}": ids[1]}
    assert run(environ, tmp_path, "store", "stats", **pins).returncode == 0
    shown = json.loads(run(environ, tmp_path, "config", "--json", **pins).stdout)
    assert {row["setting"]: row["value"] for row in shown}.items() >= pins.items()
    crossed = dict(zip(pins, reversed(ids), strict=True))
    ran = run(environ, tmp_path, "serve", **crossed)
    assert ran.returncode == 78
    assert f"DATABASE_URL: {tmp_path}/states.db: holds the store {ids[0]}, but STORAGE_STORE_ID names" in ran.stderr
    assert f"STORAGE_TENANT_{OTHER}: {tmp_path}/own: holds the store {ids[1]}, but" in ran.stderr


def test_an_accepted_store_that_the_settings_refuse_is_told(environ, ids, tmp_path):
    ran = run(environ, tmp_path, "store", "accept", STORAGE_STORE_ID=uid(5))
    assert ran.returncode == 1
    assert f"STORAGE_STORE_ID names {uid(5)}: set it to {ids[0]}" in ran.stderr


def test_tenants_that_share_a_store_name_one_id_for_it(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    shared = {f"STORAGE_TENANT_{OTHER}": url, f"STORAGE_TENANT_{uid(3)}": url, f"STORAGE_STORE_ID_{OTHER}": uid(7)}
    found, mistakes = read(shared)
    assert mistakes == []
    assert found.store_id_of(found.tenant_stores[uid(3)].url) == uid(7)
    assert found.store_id_of(found.store_url) == ""
    _, mistakes = read(shared | {f"STORAGE_STORE_ID_{uid(3)}": str(uuid.uuid4())})
    assert mistakes == ["STORAGE_STORE_ID: tenants that share a store name several ids for it"]
