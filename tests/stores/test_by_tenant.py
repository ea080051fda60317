"""Stores of tenants' own: where each tenant's states lie, and whom an outage concerns."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from http.client import HTTPException

import pytest

from receiver.app import create_app
from receiver.bootstrap import open_configured
from receiver.keys.keyring import Keyring
from receiver.mock_platform.client import Client
from receiver.problems import StoreUnavailable
from receiver.settings import Settings, read
from receiver.states import Instant
from tests.support.commands import receiver
from tests.support.platform_client import InProcess, assert_problem, loaded, ring_of
from tests.support.serving import children_of, serving
from tests.support.states import OTHER, TENANT, a_receipt, a_state, uid
from tests.support.store_commands import filled, some_states
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def settings_of(**environ):
    found, mistakes = read(environ)
    assert mistakes == []
    return found


@pytest.fixture
def homes(new_url, tmp_path):
    """The environment of a receiver that keeps OTHER's states in a store of its own."""
    return {
        "DATABASE_URL": new_url("sqlite"),
        f"STORAGE_TENANT_{OTHER.replace('-', '_')}": new_url("postgresql"),
        f"STORAGE_REGION_{OTHER}": "Frankfurt",
        "STORAGE_REGION": "Paris",
    }


def test_a_tenant_with_a_store_of_its_own_has_its_states_there_and_nowhere_else(homes, keys, clock, flow):
    settings = settings_of(**homes)
    with contextlib.closing(open_configured(settings, Keyring())) as store:
        application = create_app(settings, ring_of(keys), store, clock)
        for tenant in (TENANT, OTHER):
            client = InProcess(application.test_client(), tenant, keys)
            state = flow.state() | {"tenant": tenant}
            assert client.save(state).status == 204
            assert loaded(client, state["id"]) == state["content"]
            assert [one.tenant for one in store.of(tenant).scan()] == [tenant]
        assert [one.tenant for one in store.summaries()] == [TENANT, OTHER]
        assert [one.tenant for one in store.scan()] == [TENANT, OTHER]
        assert client.delete([state["id"]]).status == 204
        assert client.load(state["id"]).status == 404
        assert (
            store.save(
                OTHER, [a_state(1, tenant=OTHER, expires_at=Instant.parse("2020-01-01T00:00:00Z"))], a_receipt()
            ).stored
            == 1
        )
        assert store.was_done(OTHER, a_receipt())
        assert not store.was_done(TENANT, a_receipt())
        assert store.purge(1_700_000_000 * 10**9) == 1


def test_an_outage_of_one_tenants_store_is_that_tenants_alone(keys, clock, flow, new_url, tmp_path):
    settings = settings_of(
        DATABASE_URL=new_url("sqlite"),
        STORAGE_STORE_TIMEOUT="1",
        **{f"STORAGE_TENANT_{OTHER}": "postgresql://u:p@127.0.0.1:1/d"},
    )
    with contextlib.closing(open_configured(settings, Keyring())) as store:
        application = create_app(settings, ring_of(keys), store, clock)
        for tenant in (TENANT, OTHER):
            client = InProcess(application.test_client(), tenant, keys)
            answer = client.save(flow.state() | {"tenant": tenant})
            assert answer.status == (204 if tenant == TENANT else 503)
            assert client.health().status == 200


def test_residency_shows_where_each_tenant_lies_and_what_lies_elsewhere(homes, tmp_path):
    own = next(value for name, value in homes.items() if name.startswith("STORAGE_TENANT_"))
    with filled(homes["DATABASE_URL"], *some_states()), filled(own):
        ran = receiver("store", "residency", "--json", cwd=tmp_path, **homes)
        rows = json.loads(ran.stdout)
        assert [(row["tenant"], row["region"], row["verdict"].split(",")[0]) for row in rows] == [
            (TENANT, "Paris", "at home"), (OTHER, "Paris", "belongs in PostgreSQL"), (OTHER, "Frankfurt", "empty"),
        ]  # fmt: skip
        assert ran.returncode == 1
        assert receiver("store", "copy", "--tenant", OTHER, "--to", own, cwd=tmp_path, **homes).returncode == 0
        url = ("--url", homes["DATABASE_URL"])
        assert receiver("store", "delete", OTHER, "--all", "--yes", *url, cwd=tmp_path, **homes).returncode == 0
        ran = receiver("store", "residency", cwd=tmp_path, **homes)
        assert ran.returncode == 0, ran.stdout
        blocks = [dict(re.findall(r"^(\w+) +(.+)$", block, re.MULTILINE)) for block in ran.stdout.split("\n\n")]
        assert [(one["tenant"], one["region"], one["states"]) for one in blocks] == [
            (TENANT, "Paris", "30"), (OTHER, "Frankfurt", "5"),
        ]  # fmt: skip
        assert re.fullmatch(r"PostgreSQL, 127.0.0.1:\d+, database test_\d+", blocks[1]["store"])
        shown = receiver("config", "--markdown", cwd=tmp_path, **homes)
        assert shown.returncode == 0


def test_residency_tells_of_a_store_that_is_silent(new_url, tmp_path):
    environ = {"DATABASE_URL": new_url("sqlite"), f"STORAGE_TENANT_{OTHER}": "postgresql://u:p@127.0.0.1:1/d"}
    with filled(environ["DATABASE_URL"], a_state()):
        ran = receiver("store", "residency", cwd=tmp_path, **environ)
        assert ran.returncode == 1
        assert "no answer" in ran.stdout


def test_two_tenants_may_share_a_store(new_url):
    shared = new_url("sqlite")
    settings = settings_of(
        DATABASE_URL=new_url("sqlite"), **{f"STORAGE_TENANT_{uid(7)}": shared, f"STORAGE_TENANT_{uid(8)}": shared}
    )
    with contextlib.closing(open_configured(settings, Keyring())) as store:
        store.prepare()
        assert store.of(uid(7)) is store.of(uid(8))
        assert store.of(uid(7)) is not store.of(TENANT)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("STORAGE_TENANT_x", "sqlite:///x.db", "must end in a tenant's UUID"),
        (f"STORAGE_TENANT_{OTHER}", "oracle://hunter2", "must be sqlite:///path"),
        (f"STORAGE_REGION_{OTHER}", "Paris", "names a tenant that no STORAGE_TENANT_"),
        ("STORAGE_TENANTS", "x,y", "must be UUIDs separated by commas"),
        ("STORAGE_REGION", "a\nb", "printable"),
        ("STORAGE_STORE_ID", "x", "must be a UUID"),
        ("STORAGE_STORE_ID_x", uid(1), "must end in a tenant's UUID"),
        (f"STORAGE_STORE_ID_{OTHER}", uid(1), "names a tenant that no STORAGE_TENANT_"),
    ],
)
def test_a_wrong_name_or_value_of_a_tenants_store_is_told(name, value, told):
    _, (mistake,) = read({name: value})
    assert mistake.startswith(f"{name}: ")
    assert told in mistake
    assert "hunter2" not in mistake


def test_a_tenants_store_that_cannot_be_stops_the_start(tmp_path):
    assert receiver("keys", "generate", cwd=tmp_path).returncode == 0
    ran = receiver("serve", cwd=tmp_path, **{f"STORAGE_TENANT_{OTHER}": "sqlite:////no/such/folder/x.db"})
    assert ran.returncode == 78
    assert f"STORAGE_TENANT_{OTHER}: /no/such/folder/x.db: the folder" in ran.stderr


def test_only_the_tenants_of_the_list_are_served(keys, store, clock, flow):
    application = create_app(Settings(tenants=frozenset({TENANT})), ring_of(keys), store, clock)
    served, other = (InProcess(application.test_client(), tenant, keys) for tenant in (TENANT, OTHER))
    assert served.save(flow.state() | {"tenant": TENANT}).status == 204
    state = flow.state() | {"tenant": OTHER}
    for answer in (other.save(state), other.load(state["id"]), other.delete([state["id"]])):
        assert_problem(answer, 401, "The request signature is missing or not valid.")
    assert [one.tenant for one in store.scan()] == [TENANT]


def test_a_purge_reaches_every_store_that_answers(new_url):
    settings = settings_of(
        DATABASE_URL="postgresql://u:p@127.0.0.1:1/d",
        STORAGE_STORE_TIMEOUT="1",
        **{f"STORAGE_TENANT_{OTHER}": new_url("sqlite")},
    )
    with contextlib.closing(open_configured(settings, Keyring())) as store:
        with pytest.raises(StoreUnavailable):
            store.prepare()
        store.save(OTHER, [a_state(1, tenant=OTHER, expires_at=Instant.parse("2020-01-01T00:00:00Z"))], None)
        with pytest.raises(StoreUnavailable):
            store.purge(1_700_000_000 * 10**9)
        assert list(store.summaries(OTHER)) == []


def test_only_a_store_that_could_not_be_prepared_may_be_made_by_workers(keys, new_url, tmp_path):
    """A tenant's server is down at the start; the file of the others vanishes later: that must stay an outage."""
    here = new_url("sqlite")
    down = {f"STORAGE_TENANT_{OTHER}": "postgresql://u:p@127.0.0.1:1/d", "STORAGE_STORE_TIMEOUT": "1"}
    with serving(keys, tmp_path, DATABASE_URL=here, STORAGE_WORKERS="1", **down) as running:
        (worker,) = children_of(running.process.pid)
        path = here.removeprefix("sqlite:///")
        for name in (path, f"{path}-wal", f"{path}-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        os.kill(worker, signal.SIGKILL)
        client = Client(running.url, TENANT, keys)

        def another_worker_answers():
            with contextlib.suppress(OSError, HTTPException):
                if children_of(running.process.pid) not in ([], [worker]):
                    assert client.health().status == 503
                    return True
            return False

        until(another_worker_answers, pause=0.1)
        client.close()
        assert not os.path.exists(path)


def test_one_store_under_two_spellings_is_one_for_residency(keys, new_url, tmp_path):
    here = f"sqlite:///{tmp_path}/one.db"
    environ = {"DATABASE_URL": here, f"STORAGE_TENANT_{OTHER}": "sqlite:///one.db", "STORAGE_REGION": "Paris"}
    with filled(here, *some_states()):
        ran = receiver("store", "residency", "--json", cwd=tmp_path, **environ)
        rows = json.loads(ran.stdout)
        assert [(row["tenant"], row["states"], row["verdict"]) for row in rows] == [
            (TENANT, 30, "at home"),
            (OTHER, 5, "at home"),
        ]
        assert ran.returncode == 0
        assert receiver("store", "copy", "--to", "sqlite:///one.db", cwd=tmp_path, DATABASE_URL=here).returncode == 2


def test_tenants_that_share_a_store_keep_their_own_labels_and_have_rows_without_states(new_url, tmp_path):
    shared = new_url("sqlite")
    environ = {
        "DATABASE_URL": new_url("sqlite"),
        **{f"STORAGE_TENANT_{tenant}": shared for tenant in (uid(7), uid(8))},
        f"STORAGE_REGION_{uid(7)}": "Frankfurt",
        f"STORAGE_REGION_{uid(8)}": "Dublin",
    }
    with filled(environ["DATABASE_URL"]), filled(shared, a_state(1, tenant=uid(8))):
        rows = json.loads(receiver("store", "residency", "--json", cwd=tmp_path, **environ).stdout)
    assert [(row["tenant"], row["region"], row["states"], row["verdict"]) for row in rows] == [
        (None, "", 0, "empty"), (uid(7), "Frankfurt", 0, "empty"), (uid(8), "Dublin", 1, "at home"),
    ]  # fmt: skip


def test_a_silent_store_of_a_tenant_delays_no_start(keys, platform_at, tmp_path):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        tenants = {
            f"STORAGE_TENANT_{uid(70 + number)}": f"postgresql://u:p@127.0.0.1:{one.getsockname()[1]}/d"
            for number, one in enumerate(silent)
        }
        began = time.monotonic()
        running = stack.enter_context(serving(keys, tmp_path, STORAGE_STORE_TIMEOUT="3", **tenants))
        assert platform_at(running.url).health().status == 200
        assert time.monotonic() - began < 8
