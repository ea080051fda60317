"""The doctor on keys: missing, wrong, unprotected, old and unused ones, and clocks that are apart."""

import json
import time
import uuid

import pytest

from receiver.doctor.checks import clock, keys
from receiver.doctor.checks.clock import Offset
from receiver.doctor.subject import Subject
from receiver.keys import keyring
from receiver.mock_platform import keyfiles
from receiver.mock_platform.keys import new_store
from receiver.settings import Settings, read
from tests.support.commands import receiver
from tests.support.doctoring import reported, seal
from tests.support.key_files import put


def keys_of(folder, uses=None, now=None, **settings):
    given = Settings(keys=folder, **settings)
    ring, mistakes = keyring.load(given)
    return reported(keys.check(Subject(given, (), ring, tuple(mistakes)), uses or {}, now))


def test_no_key_at_all_tells_how_shells_lose_them(tmp_path):
    report = keys_of(tmp_path)
    found = report.one("keys", "fail", "no platform key at all", "platform-<kid>.json")
    assert "drop names with hyphens" in found.details[0]
    report.one("keys", "fail", "no receiver key at all")


def test_what_is_wrong_with_a_key_file_comes_with_what_mends_it(tmp_path):
    put(tmp_path, new_store())
    exposed = next(tmp_path.glob("receiver-*"))
    exposed.chmod(0o644)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / f"platform-{uuid.uuid4()}.json").write_text(next(tmp_path.glob("platform-*")).read_text())
    report = keys_of(tmp_path)
    report.one("keys", "fail", "everybody on this machine", f"chmod o= {exposed}")
    report.one("keys", "fail", "notes.txt", "remove it, or rename it")
    report.one("keys", "fail", 'another "kid"', "rename it to the kid")
    assert "STORAGE_INSECURE_KEYS" not in keys_of(tmp_path, insecure_keys="warn").one("keys", "warn", "chmod o=").fix


def test_a_protected_key_without_its_passphrase(tmp_path):
    put(tmp_path, new_store())
    name = str(next(tmp_path.glob("receiver-*")))
    environ = {"STORAGE_KEY_PASSPHRASE": "correct horse"}
    assert receiver("keys", "protect", name, **environ).returncode == 0
    keys_of(tmp_path).one("keys", "fail", "is protected by a passphrase", "STORAGE_KEY_PASSPHRASE_FILE")
    settings, _ = read({"STORAGE_KEYS": str(tmp_path), **environ})
    ring, mistakes = keyring.load(settings)
    assert (
        "1 protected by a passphrase"
        in reported(keys.check(Subject(settings, (), ring, tuple(mistakes)), {})).one("keys", "ok").message
    )


def test_private_halves_of_the_platform_that_lie_there(tmp_path):
    made = new_store()
    list(keyfiles.write(tmp_path, made))
    keys_of(tmp_path).one("keys", "ok", "test keys, at an address that only this machine reaches")  # make run
    keys_of(tmp_path, trusted_proxies=("127.0.0.1/32",)).one("keys", "warn", "not for production")
    keys_of(tmp_path, bind="0.0.0.0:8080").one("keys", "warn", "test keys", "rm ", "mock-platform-")
    private = next(tmp_path.glob("platform-*"))
    private.write_text(json.dumps(made.platform.private()))
    keys_of(tmp_path).one("keys", "warn", f"{private} holds the platform's private half")


def test_contents_in_the_clear_are_a_warning(tmp_path):
    put(tmp_path, new_store())
    keys_of(tmp_path).one("keys", "warn", "no sealing key", "receiver keys sealing")
    needs_a_key = {("sealing", "2b1ad7f1"): 1}  # the store itself says that this one is missing
    assert keys_of(tmp_path, needs_a_key).worse_than_ok() == []
    keys_of(tmp_path, {("sealing", "clear"): 1}).one("keys", "warn", "no sealing key")
    seal(tmp_path)
    assert keys_of(tmp_path).worse_than_ok() == []


def test_old_keys_and_keys_of_the_future(tmp_path):
    put(tmp_path, new_store())
    kid = next(tmp_path.glob("platform-*")).stem.removeprefix("platform-")
    year = 366 * 86400
    report = keys_of(tmp_path, now=time.time() + year)
    assert kid in report.one("keys", "warn", "older than a year", "new pair").message
    keys_of(tmp_path, now=time.time() - year).one("keys", "warn", "made in the future", "see clock")


def test_a_key_that_nobody_uses_beside_one_that_is_used(tmp_path):
    put(tmp_path, old := new_store())
    put(tmp_path, new := new_store())
    now = time.time() + 60 * 86400
    uses = {("platform", new.platform.kid): int(now) - 60, ("receiver", new.receiver.kid): int(now) - 60}
    report = keys_of(tmp_path, uses, now)
    assert report.one("keys", "warn", old.platform.kid, "remove it").message.startswith("platform key")
    assert new.platform.kid not in report.one("keys", "warn", old.platform.kid).message
    assert "used 1 min ago" in report.one("keys", "ok").message
    assert not [one for one in keys_of(tmp_path, uses).of("keys", "warn") if "not used" in one.message]  # made just now
    assert not [one for one in keys_of(tmp_path, {}, now).of("keys", "warn") if "not used" in one.message]


def test_a_tenant_whose_keys_are_one_sided_or_that_is_not_served(tmp_path):
    tenant, other = str(uuid.uuid4()), str(uuid.uuid4())
    put(tmp_path / tenant, new_store())
    put(tmp_path / other, new_store())
    next((tmp_path / tenant).glob("platform-*")).unlink()
    keys_of(tmp_path).one("keys", "fail", f"tenant {tenant} has no platform key", f"{tmp_path}/{tenant}/")
    report = keys_of(tmp_path, tenants=frozenset([tenant]))
    report.one("keys", "warn", other, "STORAGE_TENANTS does not list it")


# Clock


@pytest.mark.parametrize(
    ("ahead", "unsure", "verdict"), [(0.2, 0.1, "ok"), (5.4, 0.5, "ok"), (-8, 0.5, "warn"), (31, 0.1, "fail"), (-3600, 1, "fail")]
)  # fmt: skip
def test_clocks_that_are_apart(ahead, unsure, verdict):
    (found,) = clock.check(Settings(), [Offset("the database server", ahead, unsure)], None)
    assert found.verdict == verdict
    assert ("behind" if ahead > 0 else "ahead of") in found.message
    assert [one.message for one in clock.check(Settings(), [Offset("the server", 0.4, 0.5)], None)] == [
        "agrees with the server"
    ]
    assert bool(found.fix) == (verdict != "ok")


def test_what_the_kernel_says_of_its_clock():
    assert clock.is_synchronised() in (True, False, None)
    (found,) = clock.check(Settings(), [], False)
    assert (found.verdict, found.fix.split()[0]) == ("warn", "timedatectl")
    assert [one.verdict for one in clock.check(Settings(), [], True)] == ["ok"]
    assert [one.verdict for one in clock.check(Settings(), [], None)] == ["ok"]
