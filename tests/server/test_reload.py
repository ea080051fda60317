"""Keys and certificates that change while receivers run: who takes them, when, and that nobody notices."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from gunicorn.arbiter import Arbiter

from receiver.keys.keyring import Keyring
from receiver.mock_platform.keys import new_store
from receiver.secret import Secret
from receiver.server.arbiter import Master
from receiver.server.reload import Watch, changes_of_keys, changes_of_settings
from receiver.settings import Settings
from tests.support import certificates
from tests.support.commands import receiver
from tests.support.key_files import put
from tests.support.platform_client import ring_of
from tests.support.reloading import calling, hang_up, log_of, taken
from tests.support.serving import children_of, environment_of, serving
from tests.support.waiting import pass_time, until

pytestmark = pytest.mark.slow


@pytest.mark.case("H03", "G06")
def test_keys_are_exchanged_under_load_and_no_request_fails(keys, platform_at, tmp_path):
    old, new = new_store(), new_store()
    put(tmp_path / "keys", old)
    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="info") as running:
        until(lambda: len(children_of(running.process.pid)) == 2)
        workers = children_of(running.process.pid)
        with calling(lambda: platform_at(running.url, keys=old), range(2)) as with_old:
            put(tmp_path / "keys", new)
            hang_up(running, tmp_path)
            with calling(lambda: platform_at(running.url, keys=new), range(2, 5)) as with_new:
                for count in (10, 20, 30):
                    until(lambda count=count: all(caller.answered >= count for caller in with_old + with_new))
                    hang_up(running, tmp_path)
                for caller in with_old:
                    caller.stop()
                for keyfile in (old.platform, old.receiver):
                    (path,) = (tmp_path / "keys").glob(f"*{keyfile.kid}*")
                    path.unlink()
                hang_up(running, tmp_path)
                for _ in range(20):  # whichever worker it meets
                    assert platform_at(running.url, keys=old).load(old.platform.kid).status == 401
        platform_at.close()
        assert [caller.wrong for caller in with_old + with_new] == [[]] * 5
        assert all(caller.answered >= 30 for caller in with_old + with_new)
        assert children_of(running.process.pid) == workers
        assert taken(tmp_path) == {str(worker): 5 for worker in workers}
    print(f"{sum(caller.answered for caller in with_old + with_new)} requests, 5 times SIGHUP, none failed")
    log = log_of(tmp_path)
    assert log.count(f"key added: receiver {new.receiver.kid}") == 1
    assert log.count(f"key removed: platform {old.platform.kid}") == 1
    assert new.receiver.private()["d"] not in log and "Traceback" not in log


def test_wrong_files_are_named_and_change_nothing(keys, platform_at, state, tmp_path):
    more = new_store()
    with serving(keys, tmp_path, **certificates.write(tmp_path)) as running:
        put(tmp_path / "keys", more)
        (tmp_path / "server.key").write_text("no key")
        (tmp_path / "keys" / "receiver-x.json").write_text('{"kty": "EC", "d": "a secret"}')
        running.process.send_signal(signal.SIGHUP)
        until(lambda: "old keys and certificates stay in use" in log_of(tmp_path))
        assert platform_at(running.url, certificates.trusting(), more).load(state["id"]).status == 401
        assert platform_at(running.url, certificates.trusting()).load(state["id"]).status == 404
        (tmp_path / "keys" / "receiver-x.json").unlink()
        certificates.write(tmp_path)
        hang_up(running, tmp_path)
        assert platform_at(running.url, certificates.trusting(), more).load(state["id"]).status == 404
        platform_at.close()
    log = log_of(tmp_path)
    assert re.search(r"ERROR   \S+receiver-x\.json: must be named", log)
    assert "ERROR   STORAGE_TLS_KEY: must hold the certificate's private key in PEM" in log
    assert "a secret" not in log and "Traceback" not in log


def mounted(folder, name, *stores):
    """Lay files out as Kubernetes does for a secret: links to a folder that a link names, which is swapped."""
    version = folder / f"..{name}"
    version.mkdir(parents=True)
    for store in stores:
        put(version, store)
    certificates.write(version)
    for path in version.iterdir():
        if not (folder / path.name).is_symlink():
            (folder / path.name).symlink_to(f"..data/{path.name}")
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")
    for path in folder.iterdir():
        if not path.name.startswith("..") and not path.exists():
            path.unlink()


def test_swapped_folders_are_taken_without_a_signal_and_no_request_fails(keys, platform_at, state, tmp_path):
    old, new = new_store(), new_store()
    secret, keyfolder = tmp_path / "secret", tmp_path / "mounted"
    secret.mkdir()
    certificates.write(secret)
    keyfolder.mkdir()
    mounted(keyfolder, "1", old)
    for path in keyfolder.glob("server.*"):
        path.rename(tmp_path / path.name)  # links into the folder, from where only keys may lie
    for name in ("server.pem", "server.key"):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(f"mounted/..data/{name}")
    tls = {"STORAGE_TLS_CERT": str(tmp_path / "server.pem"), "STORAGE_TLS_KEY": str(tmp_path / "server.key")}
    with serving(keys, tmp_path, STORAGE_KEYS=str(keyfolder), **tls) as running:
        context = certificates.trusting()
        kept = platform_at(running.url, context, old)
        assert kept.load(state["id"]).status == 404
        with calling(lambda: platform_at(running.url, context, old), range(2)) as callers:
            began = time.monotonic()
            mounted(keyfolder, "2", old, new)
            for name in ("server.pem", "server.key"):
                (keyfolder / name).unlink(missing_ok=True)
            until(lambda: len(taken(tmp_path)) == 2)
            waited = time.monotonic() - began
            until(lambda: all(len(caller.shown) == 2 for caller in callers))
        assert [caller.wrong for caller in callers] == [[], []]
        for _ in range(10):
            assert platform_at(running.url, context, new).load(state["id"]).status == 404
        assert kept.connection.sock is not None  # since before the certificate changed
        assert kept.load(state["id"]).status == 404
        platform_at.close()
    print(f"taken {waited:.1f} s after the folders were swapped")
    assert waited < 17
    assert len(re.findall("is shown to new connections", log_of(tmp_path))) == 1


@pytest.mark.case("G06")
def test_a_worker_that_starts_while_keys_change_has_the_new_ones(keys, platform_at, state, tmp_path):
    with serving(keys, tmp_path) as running:
        for _ in range(4):
            more = new_store()
            put(tmp_path / "keys", more)
            before = children_of(running.process.pid)
            for worker in before:
                os.kill(worker, signal.SIGKILL)
            for _ in range(40):  # some of them as close behind the forks as it gets
                running.process.send_signal(signal.SIGHUP)
                pass_time(0.005, "signals come one after the other")
            until(lambda before=before: len(set(children_of(running.process.pid)) - set(before)) == 2)
            for _ in range(10):
                assert platform_at(running.url, keys=more).load(state["id"]).status == 404
        platform_at.close()
    assert "was sent SIGHUP" not in log_of(tmp_path)


def test_signals_wait_from_the_fork_on_until_the_worker_listens(monkeypatch):
    waiting = []
    monkeypatch.setattr(Arbiter, "spawn_worker", lambda _: waiting.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    Master.spawn_worker(object.__new__(Master))
    assert {signal.SIGHUP, signal.SIGTERM, signal.SIGINT} <= waiting[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_a_start_that_is_broken_off_ends_at_once(keys, tmp_path):
    for delay in (0, 0.01, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-m", "receiver", "serve"],
            env=environment_of(keys, tmp_path, STORAGE_BIND="127.0.0.1:0", PYTHONPATH=os.getcwd()),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            assert any("address" in line for line in process.stdout)
            pass_time(delay, "the moment of the start at which it is broken off")
            began = time.monotonic()
            process.terminate()
            assert process.wait(40) == 0
            assert time.monotonic() - began < 10, delay


def test_files_that_come_to_rest_are_noticed_once(tmp_path):
    now = [0.0]
    (tmp_path / "keys").mkdir()
    (tmp_path / "password").touch()
    settings = Settings(keys=tmp_path / "keys", paths={"DATABASE_PASSWORD_FILE": str(tmp_path / "password")})
    watch = Watch(settings, lambda: now[0])

    def looks():
        now[0] += 5
        return watch.has_changed()

    assert [looks(), looks()] == [False, False]
    for change in (
        lambda: (tmp_path / "keys" / "a.json").write_text("a"),
        lambda: (tmp_path / "keys" / "a.json").write_text("ab"),
        (tmp_path / "keys" / "tenant").mkdir,
        (tmp_path / "keys" / "tenant" / "b.json").touch,
        (tmp_path / "keys" / "a.json").unlink,
        lambda: (tmp_path / "password").write_text("new"),
        lambda: shutil.rmtree(tmp_path / "keys"),
    ):
        change()
        assert watch.has_changed() is False  # too early
        assert [looks(), looks()] == [False, True]
        watch.settle()
        assert [looks(), looks()] == [False, False]
    (tmp_path / "keys").mkdir()
    assert looks() is False
    (tmp_path / "keys" / "a.json").touch()  # still being written
    assert [looks(), looks()] == [False, True]


def test_a_ring_is_replaced_for_all_who_hold_it(keys, foreign_keys, tenant):
    ring, other = ring_of(keys), ring_of(keys, foreign_keys)
    assert ring.find("platform", foreign_keys.platform.kid, tenant) is None
    assert changes_of_keys(ring, other) == [
        f"key added: platform {foreign_keys.platform.kid}",
        f"key added: receiver {foreign_keys.receiver.kid}",
    ]
    ring.replace(other)
    assert ring.find("platform", foreign_keys.platform.kid, tenant) is not None
    assert changes_of_keys(ring, Keyring())[0].startswith("key removed: platform ")
    limited = ring_of(keys, foreign_keys, tenants=[None, tenant])
    assert [line.partition(":")[0] for line in changes_of_keys(ring, limited)] == ["key changed"] * 2


def test_settings_that_need_a_restart_are_named_without_their_values():
    old, new = (
        Settings(database_password=Secret("one")),
        Settings(database_password=Secret("two"), key_passphrase=Secret("three")),
    )
    assert changes_of_settings(old, new) == ["DATABASE_PASSWORD has changed, which takes effect with a restart"]


def test_a_folder_that_is_gone_and_a_last_sealing_key_are_no_change_to_take(keys, platform_at, state, tmp_path):
    ran = receiver("keys", "sealing", "--directory", "keys", cwd=tmp_path)
    assert ran.returncode == 0
    with serving(keys, tmp_path, STORAGE_LOG_LEVEL="info") as running:
        client = platform_at(running.url)
        assert client.save(state).status == 204
        for away, fault in (
            ("keys", "the directory of keys is gone"),
            ("keys/" + os.listdir(tmp_path / "keys")[0], "no sealing key is left"),
        ):
            (tmp_path / away).rename(tmp_path / "aside")
            running.process.send_signal(signal.SIGHUP)
            until(lambda fault=fault: fault in log_of(tmp_path) or "must be the path" in log_of(tmp_path))
            assert client.load(state["id"]).status == 200
            assert client.health().status == 200
            (tmp_path / "aside").rename(tmp_path / away)
        assert "key removed" not in log_of(tmp_path)
        assert "no sealing key is left" in log_of(tmp_path)
