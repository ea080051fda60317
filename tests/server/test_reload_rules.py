"""A reload is held to the rules of a start: what a start refuses a reload refuses, and what was in force stays so."""

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from receiver import bootstrap
from receiver.admin.readiness import check_keys
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from receiver.process.lifecycle import Lifecycle
from receiver.server.application import Server
from receiver.server.reload import Reloads
from receiver.server.reload_check import StoresDisagree
from receiver.server.startup import prepare_stores
from receiver.settings import SettingsMistakes
from receiver.stores import open_store
from tests.support import certificates
from tests.support.commands import receiver
from tests.support.key_files import put
from tests.support.platform_client import loaded, ring_of
from tests.support.reloading import hang_up, log_of, taken
from tests.support.sealing import seal
from tests.support.serving import children_of, serving
from tests.support.states import OTHER, TENANT, a_state
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow

TENANT_VARIABLE = f"STORAGE_TENANT_{OTHER.replace('-', '_')}"


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A folder with all that a receiver can be configured by, and the environment that names it."""
    store = new_store()
    put(tmp_path / "keys", store)
    environment = {
        "STORAGE_KEYS": str(tmp_path / "keys"),
        "DATABASE_URL": f"sqlite:///{tmp_path}/states.db",
        f"{TENANT_VARIABLE}_FILE": str(tmp_path / "tenant-url"),
        "STORAGE_KEY_PASSPHRASE_FILE": str(tmp_path / "passphrase"),
        "STORAGE_MAX_ITEMS_FILE": str(tmp_path / "items"),
        "STORAGE_BIND": "127.0.0.1:0",
        **certificates.write(tmp_path),
    }
    (tmp_path / "tenant-url").write_text(f"file://{tmp_path}/own\n")
    (tmp_path / "passphrase").write_text("the passphrase")
    (tmp_path / "items").write_text("10")
    for path in ("passphrase", "items", "tenant-url"):
        (tmp_path / path).chmod(0o600)
    shutil.copy(tmp_path / "server.pem", tmp_path / "ca.pem")
    environment["STORAGE_TLS_CLIENT_CA"] = str(tmp_path / "ca.pem")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for url in (f"sqlite:///{tmp_path}/states.db", f"file://{tmp_path}/own"):
        with contextlib.closing(open_store(url, 5)) as opened:
            opened.prepare()
    return SimpleNamespace(folder=tmp_path, keys=store, path=lambda role: next((tmp_path / "keys").glob(f"{role}-*")))


def started() -> Server:
    """Return the server of a start by all its rules; raises SettingsMistakes."""
    settings, ring = bootstrap.configure()
    server = Server(settings, ring, lambda *_: None, prepare_stores(settings, ring))
    server.folder = SimpleNamespace(trial_keys=contextlib.nullcontext)
    return server


def in_force(server):
    ring = server.keyring
    keys = {(key.role, key.kid, key.thumbprint) for key in ring}
    return keys, {key.kid for key in ring.sealing}, server.tls, dict(server.logins._known), server.life.accepted


def write(path, text):
    path.write_text(text)
    path.chmod(0o600)


def keep_in_the_clear(url, tenant):
    with contextlib.closing(open_store(url, 5)) as opened:
        opened.save(tenant, [a_state(tenant=tenant)], None)


def a_first_key_over(url, tenant):
    def break_it(it):
        keep_in_the_clear(url.format(it.folder), tenant)
        seal(it.folder)

    return break_it


# What a reload takes × what a start refuses of it.
FAULTS = {
    "platform key: not JSON": lambda it: write(it.path("platform"), "{"),
    "platform key: another kid than its name": lambda it: write(
        it.path("platform"), json.dumps(new_store().platform.public())
    ),
    "platform key: gone, and no other": lambda it: it.path("platform").unlink(),
    "platform key: the receiver's": lambda it: write(
        it.folder / "keys/platform.json", json.dumps(it.keys.receiver.private())
    ),
    "receiver key: public only": lambda it: write(it.path("receiver"), json.dumps(it.keys.receiver.public())),
    "receiver key: for everybody to read": lambda it: it.path("receiver").chmod(0o644),
    "receiver key: gone, and no other": lambda it: it.path("receiver").unlink(),
    "receiver key: one kid, two keys": lambda it: write(
        it.folder / "keys/receiver.json",
        json.dumps(new_store().receiver.private() | {"kid": it.keys.receiver.kid}),
    ),
    "receiver key: a passphrase that does not open it": lambda it: (
        protect(it),
        write(it.folder / "passphrase", "another"),
    ),
    "a key under a name of no role": lambda it: write(it.folder / "keys/x.json", "{}"),
    "a folder of keys of no tenant": lambda it: (it.folder / "keys/x").mkdir(),
    "the folder of keys: gone": lambda it: (it.folder / "keys").rename(it.folder / "aside"),
    "sealing key: not one": lambda it: write(it.folder / "keys/sealing.json", "{}"),
    "sealing key: for everybody to read": lambda it: [
        path.chmod(0o644) for path in [it.folder / f"keys/sealing-{seal(it.folder)}.json"]
    ],
    "first sealing key: a store in the clear": a_first_key_over("sqlite:///{}/states.db", TENANT),
    "first sealing key: a tenant's store in the clear": a_first_key_over("file://{}/own", OTHER),
    "certificate: not PEM": lambda it: write(it.folder / "server.pem", "no certificate"),
    "certificate: gone": lambda it: (it.folder / "server.pem").unlink(),
    "certificate's key: not PEM": lambda it: write(it.folder / "server.key", "no key"),
    "certificate's key: for everybody to read": lambda it: (it.folder / "server.key").chmod(0o644),
    "authorities of clients: not PEM": lambda it: write(it.folder / "ca.pem", "nothing"),
    "passphrase: not UTF-8": lambda it: (it.folder / "passphrase").write_bytes(b"\xff"),
    "passphrase: gone": lambda it: (it.folder / "passphrase").unlink(),
    "a setting's file: not a number": lambda it: write(it.folder / "items", "many"),
    "a tenant's URL: not one": lambda it: write(it.folder / "tenant-url", "oracle://x"),
    "a tenant's URL: gone": lambda it: (it.folder / "tenant-url").unlink(),
}


def protect(it):
    ran = receiver("keys", "protect", str(it.path("receiver")), cwd=it.folder, STORAGE_KEY_PASSPHRASE="the passphrase")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.case("I06", "H01", "H03")
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_start_refuses_a_reload_refuses_and_what_was_in_force_stays(configured, fault):
    server = started()
    assert server.refresh() == []
    before = in_force(server)
    FAULTS[fault](configured)
    with pytest.raises(SettingsMistakes) as of_reload:
        server.refresh()
    assert in_force(server) == before
    with pytest.raises(SettingsMistakes) as of_start:
        started()
    assert of_reload.value.mistakes == of_start.value.mistakes or "gone" in fault


def test_a_sealing_key_that_contents_need_is_not_given_up(configured):
    kid = seal(configured.folder)
    server = started()
    store = bootstrap.open_configured(server.settings, server.keyring)
    store.save(TENANT, [a_state()], None)
    store.save(OTHER, [a_state(tenant=OTHER)], None)
    pass_time(1, "the times of keys are whole seconds")
    other = seal(configured.folder)
    assert server.refresh() == [f"key added: sealing {other}"]
    (configured.folder / f"keys/sealing-{kid}.json").unlink()
    with pytest.raises(StoresDisagree, match=kid) as refused:
        server.refresh()
    assert len(refused.value.mistakes) == 2  # both stores
    assert {key.kid for key in server.keyring.sealing} == {kid, other}
    store.close()


def test_a_first_key_on_empty_stores_is_taken_and_nobody_begins_to_write_in_the_clear(configured):
    server = started()
    keyless = bootstrap.open_configured(*bootstrap.configure())
    kid = seal(configured.folder)
    assert server.refresh() == [f"key added: sealing {kid}"]
    for tenant in (TENANT, OTHER):
        with pytest.raises(Exception, match=kid):
            keyless.save(tenant, [a_state(tenant=tenant)], None)
    keyless.close()


def test_a_store_that_does_not_answer_stands_against_a_first_key_and_not_against_another(configured, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:x@127.0.0.1:1/d")
    server = started()
    seal(configured.folder)
    with pytest.raises(StoresDisagree, match="does not answer"):
        server.refresh()
    restarted = started()
    assert restarted.keyring.sealing
    pass_time(1, "the times of keys are whole seconds")
    assert restarted.refresh() == [f"key added: sealing {seal(configured.folder)}"] or restarted.keyring.sealing


def test_a_refused_reload_is_tried_again_where_only_a_store_stood_against_it_and_told_once(caplog):
    now, life = [0.0], Lifecycle()
    outcomes = [StoresDisagree(["DATABASE_URL: in the clear"])] * 3 + [[], SettingsMistakes(["a mistake"])]

    def refresh():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        life.accept(bytes(32))
        return outcome

    reloads = Reloads(refresh, life, logging.getLogger("receiver"), lambda: now[0])
    assert not reloads.is_due()
    assert not reloads.take()
    assert life.refusal == "DATABASE_URL: in the clear"
    check = check_keys(ring_of(new_store()), life.refusal)
    assert (check.verdict, "in the clear" in check.told) == ("warn", True)
    tries = []
    for _ in range(60):
        now[0] += 1
        if reloads.is_due():
            tries.append((now[0], reloads.take()))
    assert tries == [(5, False), (15, False), (35, True)]
    assert caplog.text.count("in the clear") == 1
    assert life.refusal == ""
    assert not reloads.take()
    now[0] += 100
    assert not reloads.is_due()  # its files have to change


# Whole receivers


@pytest.mark.case("I06")
@pytest.mark.parametrize("kind", ["sqlite", "file"])
@pytest.mark.parametrize("of_tenant", [False, True], ids=["default", "tenants"])
def test_a_sealing_key_that_reaches_a_running_receiver_with_a_clear_store_changes_nothing(
    keys, platform_at, tenant, state, tmp_path, kind, of_tenant
):
    url = f"sqlite:///{tmp_path}/clear.db" if kind == "sqlite" else f"file://{tmp_path}/clear"
    variable = f"STORAGE_TENANT_{tenant.replace('-', '_')}" if of_tenant else "DATABASE_URL"
    environment = {variable: url, "STORAGE_ADMIN_BIND": "127.0.0.1:0"}
    with serving(keys, tmp_path, **environment) as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        seal(tmp_path)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "old keys and certificates stay in use" in log_of(tmp_path))
        for seed in range(30):  # whichever worker it meets
            with contextlib.closing(platform_at(running.url)) as one:
                new = FlowRun(tenant, seed).state()
                assert one.save(new).status == 204
                assert loaded(one, new["id"]) == new["content"]
                assert loaded(one, state["id"]) == state["content"]
        keys_check = ready(running)["checks"]["keys"]
        assert (keys_check["verdict"], "STORAGE_CLEAR_STATES=read" in keys_check["told"]) == ("warn", True)
    log = log_of(tmp_path)
    assert re.search(rf"ERROR   {variable}: the store holds states in the clear.*STORAGE_CLEAR_STATES=read", log)
    assert log.count("the store holds states in the clear") == 1
    assert "StoreDamaged" not in log


def ready(running):
    host, _, port = running.admin.rpartition("//")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz")
        return json.loads(connection.getresponse().read())


def test_no_process_takes_what_the_master_refused(keys, platform_at, state, tmp_path):
    with serving(keys, tmp_path, STORAGE_ADMIN_BIND="127.0.0.1:0", STORAGE_LOG_LEVEL="info") as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        seal(tmp_path)
        for _ in range(2):
            for pid in [*children_of(running.process.pid), running.process.pid]:
                os.kill(pid, signal.SIGHUP)
            until(lambda: "old keys and certificates stay in use" in log_of(tmp_path))
        for _ in range(20):
            with contextlib.closing(platform_at(running.url)) as one:
                assert loaded(one, state["id"]) == state["content"]
        for path in (tmp_path / "keys").iterdir():
            path.unlink()
        running.process.send_signal(signal.SIGHUP)
        until(lambda: len(taken(tmp_path)) == 2)
        assert "key added: sealing" not in log_of(tmp_path)
        assert ready(running)["checks"]["keys"]["verdict"] == "ok"


class Caller(threading.Thread):
    """Saves and loads, at the one of ``urls`` that runs, as a balancer would; every other answer is a failure."""

    def __init__(self, platform_at, urls, seed, done):
        super().__init__()
        self.platform_at, self.urls, self.seed, self.done = platform_at, urls, seed, done
        self.answered, self.wrong, self.contents = 0, [], {}

    def run(self):
        for number in range(100_000):
            if self.done.is_set():
                return
            with contextlib.closing(self.platform_at(self.urls[0])) as client:
                flow = FlowRun(client.tenant, 1000 * self.seed + number)
                state = flow.state()
                answers = [client.save(state), client.load(state["id"])]
                self.contents[client.tenant, state["id"]] = state["content"]
                self.answered += 2
                if [one.status for one in answers] != [204, 200]:
                    self.wrong.append([(one.status, one.body) for one in answers])
            self.done.wait(0.02)


STEPS = ("STORAGE_CLEAR_STATES=read", "Add sealing-", "receiver store reseal", "Remove STORAGE_CLEAR_STATES")


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_the_way_from_clear_to_sealed_that_is_told_fails_no_request(  # noqa: PLR0915 - it is a long way
    request, keys, platform_at, tmp_path, backend
):
    url = f"sqlite:///{tmp_path}/states.db"
    if backend == "postgresql":
        server = request.getfixturevalue("postgresql")
        url = server.url(server.new_database())
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    urls, done = [None], threading.Event()

    def start(folder, **more):
        stack = contextlib.ExitStack()
        running = stack.enter_context(serving(keys, folder, DATABASE_URL=url, STORAGE_LOG_LEVEL="info", **more))
        return stack, running

    def restart_both(**more):
        """One after the other: calls go to the other one meanwhile."""
        for number, folder in enumerate(folders):
            urls[0] = receivers[1 - number][1].url
            pass_time(0.3, "what was sent to this one is answered")
            receivers[number][0].close()
            receivers[number] = start(folder, **more)
        urls[0] = receivers[0][1].url

    receivers = [start(folder) for folder in folders]
    urls[0] = receivers[0][1].url
    callers = [Caller(platform_at, urls, seed, done) for seed in range(3)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: all(caller.answered > 10 for caller in callers))
        ran = receiver("keys", "sealing", "--delay", "25", cwd=folders[0], DATABASE_URL=url)
        assert (ran.returncode, "DATABASE_URL: the store holds states in the clear" in ran.stderr) == (0, True)
        steps = re.findall(r"(?m)^  \d\. (.*)$", ran.stderr)
        told = [[word for word in STEPS if word in step] for step in steps]
        assert told == [[STEPS[0]], [STEPS[1]], [STEPS[2]], [STEPS[3]]]
        (made,) = (folders[0] / "keys").glob("sealing-*")
        key = json.loads(made.read_text())
        ran = receiver("store", "reseal", cwd=folders[0], DATABASE_URL=url)  # out of its turn
        assert (ran.returncode, "STORAGE_CLEAR_STATES=read" in ran.stdout) == (1, True)
        restart_both(STORAGE_CLEAR_STATES="read")
        shutil.copy(made, folders[1] / "keys")
        hang_up(receivers[1][1], folders[1])
        assert time.time() < key["nbf"]
        until(lambda: time.time() > key["nbf"] + 1, 60)
        environment = {"DATABASE_URL": url, "STORAGE_CLEAR_STATES": "read"}
        ran = receiver("store", "reseal", "--json", cwd=folders[0], **environment)
        (row,) = json.loads(ran.stdout)
        assert (ran.returncode, row["key"]) == (0, key["kid"]), (ran.stdout, ran.stderr)
        restart_both()
        goals = [caller.answered + 20 for caller in callers]
        until(lambda: all(caller.answered >= goal for caller, goal in zip(callers, goals, strict=True)))
        done.set()
        for caller in callers:
            caller.join()
        for tenant, id in list(callers[0].contents)[::10]:
            with contextlib.closing(platform_at(urls[0])) as one:
                one.tenant = tenant
                assert loaded(one, id) == callers[0].contents[tenant, id]
    finally:
        done.set()
        for caller in callers:
            caller.join()
        for stack, _ in receivers:
            stack.close()
    assert [caller.wrong for caller in callers] == [[]] * 3
    print(f"{sum(caller.answered for caller in callers)} requests from clear to sealed, none failed")
    with contextlib.closing(open_store(url, 10)) as store:
        assert {one.sealing_key for one in store.summaries()} == {key["kid"]}
