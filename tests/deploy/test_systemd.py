"""deploy/systemd: what systemd says of the units, their command by hand, and all of it under a systemd that really runs."""

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections import defaultdict

import pytest

from receiver.mock_platform.client import Client
from receiver.mock_platform.flow_states import FlowRun
from receiver.mock_platform.keys import new_store
from tests.support import deployments
from tests.support.deployments import seconds
from tests.support.platform_client import loaded
from tests.support.servers import needed
from tests.support.systemd_units import FOLDER, four_digits, give_keys
from tests.support.waiting import until

pytestmark = pytest.mark.slow

UNITS = ("receiver@.service", "receiver-purge@.service")
EXPOSURE = 1.5  # the most that `systemd-analyze security` may find, of 10
NOT_SANDBOX = re.compile(
    "Type|User|Exec.*|WorkingDirectory|Environment.*|LoadCredential|StateDirectory.*|RuntimeDirectory.*|Timeout.*|"
    "KillMode|Restart.*|OOMPolicy|LimitNOFILE|Nice"
)


def settings_of(name: str, section: str = "Service") -> dict[str, list[str]]:
    """Return key → values of a ``section`` of the unit file ``name``."""
    found, inside = defaultdict(list), False
    for line in (FOLDER / name).read_text().splitlines():
        if line.startswith("["):
            inside = line == f"[{section}]"
        elif inside and line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found[key].append(value)
    return found


def environment(port: int, **specifiers: str) -> dict[str, str]:
    """Return what receiver@.service tells its process, with the example as its file of settings."""
    lines = settings_of("receiver@.service")["Environment"] + (FOLDER / "receiver.env").read_text().splitlines()
    pairs = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {
        name: value.replace("%i", str(port)).replace("%d", specifiers.get("d", "%d")) for name, value in pairs.items()
    }


@pytest.fixture
def root(tmp_path):
    """A root for systemd-analyze: the units, and programs with the names that they start."""
    units = tmp_path / "etc/systemd/system"
    shutil.copytree(FOLDER, units)
    for path in ("opt/receiver/bin/receiver", "usr/bin/kill"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("#!/bin/sh\n")
        (tmp_path / path).chmod(0o755)
    return tmp_path


def verified(root) -> str:
    """Return what ``systemd-analyze verify`` has against the units."""
    needed("systemd-analyze")
    names = ["receiver@8080.service", "receiver-purge@8080.service", "receiver-purge@8080.timer"]
    command = ["systemd-analyze", f"--root={root}", "--man=no", "--recursive-errors=no", "verify", *names]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode == 0) == (not ran.stderr), ran
    return ran.stdout + ran.stderr


def test_systemd_has_nothing_against_the_units(root):
    assert verified(root) == ""


def test_systemd_names_what_is_wrong_in_a_unit(root):
    path = root / "etc/systemd/system/receiver@.service"
    path.write_text(path.read_text().replace("ProtectClock=", "ProtectClok="))
    assert "Unknown key 'ProtectClok'" in verified(root)


@pytest.mark.parametrize("unit", UNITS)
def test_the_sandbox_leaves_little_exposed(unit):
    needed("systemd-analyze")
    threshold = f"--threshold={round(EXPOSURE * 10)}"
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", threshold, str(FOLDER / unit)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    level = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", ran.stdout)[1])
    assert level < EXPOSURE


def test_both_units_have_the_same_sandbox():
    sandboxes = []
    for unit in UNITS:
        found = settings_of(unit)
        sandboxes.append({name: values for name, values in found.items() if not NOT_SANDBOX.fullmatch(name)})
    assert sandboxes[0] == sandboxes[1]
    assert {"SystemCallFilter", "MemoryDenyWriteExecute", "ProtectSystem", "CapabilityBoundingSet"} <= sandboxes[
        0
    ].keys()


def test_what_the_readme_copies_is_there():
    readme = (FOLDER / "README.md").read_text()
    copied = re.findall(r"deploy/systemd/([\w@.*-]+)", readme)
    found = {path.name for pattern in copied for path in FOLDER.glob(pattern)}
    assert found == {path.name for path in FOLDER.iterdir()} - {"README.md"}


def test_every_variable_is_one_that_the_receiver_knows():
    commented = re.findall(r"^#([A-Z_]+)=", (FOLDER / "receiver.env").read_text(), re.MULTILINE)
    assert commented
    assert not deployments.unknown({*environment(8080), *commented})


def test_no_secret_is_told_by_the_environment():
    names = environment(8080).keys() | set(re.findall(r"^#?([A-Z_]+)=", (FOLDER / "receiver.env").read_text(), re.M))
    assert not [name for name in names if re.search("PASSWORD|PASSPHRASE|_KEY$|_KEY_", name)]


def test_the_unit_stops_no_sooner_than_the_receiver():
    found, told = settings_of("receiver@.service"), environment(8080)
    needs = seconds(told["STORAGE_DRAIN"]) + seconds(told["STORAGE_GRACEFUL_TIMEOUT"])
    assert seconds(*found["TimeoutStopSec"]) >= needs + 10
    assert found["KillMode"] == ["mixed"]


def test_wrong_settings_are_not_tried_again_and_all_else_is():
    found = settings_of("receiver@.service")
    assert found["RestartPreventExitStatus"] == ["78"]
    assert found["Restart"] == ["on-failure"]
    assert settings_of("receiver@.service", "Unit")["StartLimitIntervalSec"] == ["0"]


def test_the_receiver_s_own_reader_finds_no_mistake_in_the_environment(keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = deployments.key_folder(tmp_path / "keys", keys)
    assert deployments.mistakes_in(environment(8123, d=str(folder))) == []


def test_the_command_of_the_unit_says_that_it_is_ready(keys, platform_at, state, tmp_path):
    """By hand what systemd does: credentials, a runtime directory, a socket for notices."""
    program, *arguments = settings_of("receiver@.service")["ExecStart"][0].split()
    assert program == "/opt/receiver/bin/receiver"
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for path in deployments.key_folder(tmp_path / "keys", keys).iterdir():
        shutil.copy(path, credentials / f"keys_{path.name}")  # as LoadCredential=keys: names what is in a folder
    (credentials / "DATABASE_PASSWORD").write_text("made up")
    for folder in ("run", "state"):
        (tmp_path / folder).mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(30)
        port = four_digits()
        told = environment(port, d=str(credentials)) | {
            "CREDENTIALS_DIRECTORY": str(credentials),
            "RUNTIME_DIRECTORY": str(tmp_path / "run"),
            "STATE_DIRECTORY": str(tmp_path / "state"),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "STORAGE_DRAIN": "1",
        }
        with deployments.started(tmp_path / "state", told, *arguments) as running:
            assert "READY=1" in notices.recv(1000).decode().splitlines()
            assert list((tmp_path / "run").iterdir()), "what a running receiver keeps lies in $RUNTIME_DIRECTORY"
            assert deployments.asked(f"http://127.0.0.1:1{port}/livez")[0] == 200
            assert deployments.asked(f"http://127.0.0.1:1{port}/readyz")[0] == 200, running.said()
            client = platform_at(f"http://127.0.0.1:{port}")
            assert client.save(state).status == 204
            platform_at.close()
            began = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - began >= seconds(told["STORAGE_DRAIN"])
        assert (tmp_path / "state" / "receiver.db").exists()


def log_of(machine, unit: str) -> str:
    return (machine.root / f"run/log-{unit}").read_text()


def status_of(machine, pid: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in (machine.root / f"proc/{pid}/status").read_text().splitlines())


def test_systemd_starts_it_in_the_sandbox_and_it_serves(host, port, platform_at, state):
    unit = f"receiver@{port}"
    host.run("systemctl", "start", unit)  # returns when READY=1 came
    assert host.show(unit, "ActiveState") == "active"
    client = platform_at(f"http://127.0.0.1:{port}")
    assert client.save(state).status == 204
    assert loaded(client, state["id"]) == state["content"]
    status, body = deployments.asked(f"http://127.0.0.1:1{port}/readyz")
    assert status == 200, body
    assert b"receiver_build_info" in deployments.asked(f"http://127.0.0.1:1{port}/metrics")[1]
    process = status_of(host, host.show(unit, "MainPID"))
    assert process["Seccomp"] == "2"  # a filter is in force
    assert process["NoNewPrivs"] == "1"
    assert {process[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0000000000000000"}
    user = host.run("id", "-u", "receiver").stdout.strip()
    assert set(process["Uid"].split()) == {user} != {"0"}
    listed = host.run("stat", "-c", "%a %U %n", f"/var/lib/receiver/{port}", f"/var/lib/receiver/{port}/receiver.db")
    assert listed.stdout.split() == [
        *("700", "receiver", f"/var/lib/receiver/{port}"),
        *("600", "receiver", f"/var/lib/receiver/{port}/receiver.db"),
    ]
    assert host.run("find", "/var", "/tmp", "-newer", "/run/console", "-user", "receiver").stdout.splitlines()[0] == (
        f"/var/lib/receiver/{port}"
    )


def test_keys_that_systemd_copied_change_with_a_restart_and_those_of_a_folder_with_a_reload(host, port, keys):
    fresh, unit = new_store(), f"receiver@{port}"
    tenant = FlowRun("00000000-0000-4000-8000-000000000001", 3).state()

    def status() -> int:
        with contextlib.closing(Client(f"http://127.0.0.1:{port}", tenant["tenant"], fresh)) as client:
            return client.save(tenant).status

    host.run("systemctl", "start", unit)
    assert status() == 401  # a key that nobody knows here
    give_keys(host, fresh)
    try:
        host.run("systemctl", "reload", unit)
        assert status() == 401
        host.run("systemctl", "restart", unit)
        assert status() == 204
        # The other way of the README: a folder that the service may read.
        host.run("cp", "-r", "/etc/receiver/keys", "/etc/receiver/readable")
        for path in (host.root / "etc/receiver/readable").glob(f"*{fresh.receiver.kid}*"):
            path.unlink()
        host.run("sh", "-ec", "chgrp -R receiver /etc/receiver/readable; chmod -R u=rX,g=rX,o= /etc/receiver/readable")
        host.write(
            f"/etc/receiver/{port}.env",
            "DATABASE_URL=sqlite:///receiver.db\nSTORAGE_KEYS=/etc/receiver/readable\nSTORAGE_DRAIN=0\n",
        )
        host.run("systemctl", "restart", unit)
        assert status() == 400  # the platform's half is there, the receiver's is not
        host.run("cp", f"/etc/receiver/keys/receiver-{fresh.receiver.kid}.json", "/etc/receiver/readable/")
        host.run("sh", "-ec", "chgrp -R receiver /etc/receiver/readable; chmod -R u=rX,g=rX,o= /etc/receiver/readable")
        host.run("systemctl", "reload", unit)
        until(lambda: status() == 204, seconds=4)  # less than it takes to notice a change by itself
    finally:
        host.run(
            "sh",
            "-ec",
            f"rm -r /etc/receiver/readable /etc/receiver/keys/*{fresh.platform.kid}* /etc/receiver/keys/*{fresh.receiver.kid}*",
            check=False,
        )


def test_systemctl_stop_drains_first_loses_no_request_and_ends_well(host, port, keys):
    unit = f"receiver@{port}"
    host.write(f"/etc/receiver/{port}.env", "DATABASE_URL=sqlite:///receiver.db\nSTORAGE_DRAIN=30\n")
    host.run("systemctl", "start", unit)
    answered, failed, enough = [], [], threading.Event()

    def send(seed: int) -> None:
        flow = FlowRun("00000000-0000-4000-8000-000000000001", seed)
        while not enough.is_set():
            with contextlib.closing(Client(f"http://127.0.0.1:{port}", flow.tenant, keys)) as client:
                try:
                    answered.append(client.save(flow.state()).status)
                except OSError as cause:
                    failed.append(cause)

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    host.run("systemctl", "stop", "--no-block", unit)
    said = until(lambda: (found := deployments.asked(f"http://127.0.0.1:1{port}/readyz"))[0] != 200 and found)
    while_draining = len(answered) + 20
    until(lambda: len(answered) >= while_draining)
    enough.set()
    for thread in threads:
        thread.join()
    assert (said[0], json.loads(said[1])["status"]) == (503, "draining")
    assert failed == []
    assert set(answered) == {204}
    assert len(answered) >= while_draining
    assert host.show(unit, "ActiveState") == "deactivating"
    host.run("systemctl", "kill", "--kill-who=main", unit)  # a second SIGTERM, which ends the drain
    host.wait_for(unit, "ActiveState", "inactive")
    assert (host.show(unit, "Result"), host.show(unit, "ExecMainStatus")) == ("success", "0")


def test_a_wrong_setting_ends_it_with_78_once_and_the_log_says_why(host, port):
    unit = f"receiver@{port}"
    host.write(f"/etc/receiver/{port}.env", "DATABASE_URL=sqlite:///receiver.db\nSTORAGE_WORKER=2\n")
    assert host.run("systemctl", "start", unit, check=False).returncode != 0
    assert host.show(unit, "ActiveState") == "failed"
    assert (host.show(unit, "ExecMainStatus"), host.show(unit, "NRestarts")) == ("78", "0")
    assert "STORAGE_WORKER: there is no such setting; the nearest is STORAGE_WORKERS" in log_of(host, unit)


def test_a_receiver_that_is_killed_is_started_again(host, port):
    unit = f"receiver@{port}"
    host.run("systemctl", "start", unit)
    host.run("kill", "-9", host.show(unit, "MainPID"))
    host.wait_for(unit, "NRestarts", "1")
    host.wait_for(unit, "ActiveState", "active")
    assert deployments.asked(f"http://127.0.0.1:{port}/api/storage/1/health")[0] == 200


def test_the_timer_starts_the_purge_of_that_receiver(host, port, platform_at, state):
    host.run("systemctl", "start", f"receiver@{port}")
    gone = state | {"expiresAt": "2020-01-01T00:00:00.0000000Z"}
    assert platform_at(f"http://127.0.0.1:{port}").save(gone).status == 204
    timer = f"receiver-purge@{port}.timer"
    host.run("systemctl", "start", timer)
    assert host.show(timer, "Unit") == f"receiver-purge@{port}.service"
    assert host.show(timer, "NextElapseUSecRealtime")
    host.run("systemctl", "start", f"receiver-purge@{port}.service")
    assert log_of(host, f"receiver-purge@{port}") == "1 expired state deleted\n"
    assert platform_at(f"http://127.0.0.1:{port}").load(state["id"]).status == 404


def test_a_password_in_the_credential_store_reaches_the_receiver_alone(host, port):
    host.write(f"/etc/credstore/receiver-{port}.DATABASE_PASSWORD", "hunter-of-two\n", 0o600)
    shown = host.run("sh", "/run/deploy/receiver-at", str(port), "config").stdout
    assert re.search(r"DATABASE_PASSWORD\b.*\*.*DATABASE_PASSWORD_FILE", shown), shown
    host.run("systemctl", "start", f"receiver@{port}")
    pid = host.show(f"receiver@{port}", "MainPID")
    assert "hunter" not in (host.root / f"proc/{pid}/environ").read_text()
    assert host.run("ls", f"/run/credentials/receiver@{port}.service").stdout.split()[0] == "DATABASE_PASSWORD"


def test_receiver_at_runs_a_command_as_the_receiver_would(host, port, platform_at, state):
    host.run("systemctl", "start", f"receiver@{port}")
    client = platform_at(f"http://127.0.0.1:{port}")
    assert client.save(state).status == 204
    stats = json.loads(host.run("sh", "/run/deploy/receiver-at", str(port), "store", "stats", "--json").stdout)
    assert [(row["tenant"], row["states"]) for row in stats] == [(state["tenant"], 1)]
    assert host.run("sh", "/run/deploy/receiver-at", str(port), "health").returncode == 0
    assert (
        host.run("sh", "/run/deploy/receiver-at", str(port), "keys", "list").stdout.count(
            "/run/credentials/receiver-at-"
        )
        == 2
    )
    shown = host.run("sh", "/run/deploy/receiver-at", str(port), "config").stdout
    assert re.search(rf"^STORAGE_ADMIN_BIND +127\.0\.0\.1:1{port} ", shown, re.MULTILINE)
    assert re.search(r"^STORAGE_DRAIN +0 +STORAGE_DRAIN", shown, re.MULTILINE)  # the file goes before the unit
    assert re.search(r"^STORAGE_GRACEFUL_TIMEOUT +30 +STORAGE_GRACEFUL_TIMEOUT", shown, re.MULTILINE)
    backup = f"sqlite:////var/lib/receiver/{port}/copy.db"
    assert "complete" in host.run("sh", "/run/deploy/receiver-at", str(port), "store", "copy", "--to", backup).stdout
    ran = host.run("sh", "/run/deploy/receiver-at", check=False)
    assert ran.returncode != 0
    assert "usage: receiver-at PORT COMMAND" in ran.stderr
