"""The doctor run by root: it looks as the receiver's user."""

import contextlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from receiver.mock_platform.keys import new_store
from receiver.process.running import services
from tests.support.doctoring import Report, seal, until
from tests.support.key_files import put

pytestmark = pytest.mark.slow


def python_for(user):
    """Return an interpreter that ``user`` may run with what is installed here, and its PYTHONPATH; None without one."""
    path = f"{os.getcwd()}:{sysconfig.get_paths()['platlib']}"
    for name in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            command = [name, "-c", "import receiver.server.application, receiver.commands.doctor"]
            if (
                subprocess.run(
                    command, user=user, env={"PYTHONPATH": path}, capture_output=True, check=False
                ).returncode
                == 0
            ):
                return name, path
    return None


def test_root_looks_with_the_eyes_of_the_receivers_user():
    if os.getuid() != 0 or not (found := python_for("nobody")):
        pytest.skip("needs root, and an interpreter that others may run")
    interpreter, path = found
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rcv-") as text:
        folder = Path(text)
        folder.chmod(0o755)
        (folder / "own").mkdir()
        (folder / "run").mkdir()
        put(folder / "own" / "keys", new_store())
        seal(folder / "own" / "keys")
        subprocess.run(["chown", "-R", "nobody", text], check=True)
        environ = {"STORAGE_KEYS": f"{text}/own/keys", "DATABASE_URL": f"sqlite:///{text}/own/states.db"}
        environ |= {
            "STORAGE_RUN_DIR": f"{text}/run",
            "STORAGE_BIND": "127.0.0.1:0",
            "STORAGE_ADMIN_BIND": "127.0.0.1:0",
        }
        environ |= {"PYTHONPATH": path, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(
                [interpreter, "-m", "receiver", "serve"], user="nobody", env=environ, stdout=log, stderr=log
            )
        try:
            until(lambda: services(f"{text}/run"))
            for words in ((), ("--pid", str(process.pid))):
                command = [interpreter, "-m", "receiver", "doctor", "--json", "--roundtrip", *words]
                ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
                report = Report(ran.returncode, ran.stdout)
                assert (report.code, report.worse_than_ok(), ran.stderr) == (0, [], "")
                assert "as nobody" in report.one("permissions", "ok").message
            owners = {path.owner() for path in folder.rglob("*") if path.name != "log"}
            assert owners == {"nobody"}
            next((folder / "own" / "keys").glob("receiver-*")).chmod(0)
            ran = subprocess.run([*command[:-2], *words], env=environ, capture_output=True, text=True, check=False)
            Report(ran.returncode, ran.stdout).one("keys", "fail", "cannot be read", "chown")
        finally:
            process.terminate()
            process.wait(30)


def test_root_that_became_another_user_stays_that_user():
    if os.getuid() != 0:
        pytest.skip("needs root")
    program = (
        "import os, receiver.doctor.impersonation as own; own.become(own.User(65534, 65534, (65534,)));"
        "print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['HOME']); os.seteuid(0)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("(65534, 65534, 65534) (65534, 65534, 65534) [65534] /")
    assert "/root" not in ran.stdout
    assert "PermissionError" in ran.stderr
