"""A systemd of its own, as on a machine that boots: the first process of namespaces that end with the test.

It has this machine's programs and network, and folders of its own where units write: /etc, /run, /opt, /var and /tmp.
The receiver is in /opt/receiver, started by a script that finds this test's Python and packages below /opt.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.support.waiting import until

REPOSITORY = Path(__file__).parents[2]
_UNITS = REPOSITORY / "deploy" / "systemd"
_SYSTEMD = "/lib/systemd/systemd"
# What units are ordered after and wanted by; nothing of this machine's own is started.
_TARGETS = ("sysinit", "basic", "shutdown", "umount", "sockets", "network-online", "time-sync", "multi-user", "timers")
_TARGET = "[Unit]\nDefaultDependencies=no\n"
_START = f"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
cp -a /etc /run/etc
mount --bind /run/etc /etc
mount -t tmpfs tmpfs /opt
mkdir -p /opt/receiver/bin /opt/python /opt/site /opt/source/receiver
mount --bind "$PYTHON" /opt/python
mount --bind "$SITE" /opt/site
mount --bind "$SOURCE/receiver" /opt/source/receiver
cp -r "$SOURCE/deploy/systemd" /run/deploy
for folder in /var /tmp /lib/systemd/system-generators /lib/systemd/system-environment-generators; do
    mount -t tmpfs tmpfs $folder
done
mkdir -p /var/lib /var/tmp /var/log /etc/units /run/systemd
chmod 1777 /tmp /var/tmp
ln -s /run /var/run
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cp /lib/systemd/system/dbus.service /lib/systemd/system/dbus.socket /etc/units/
for target in {" ".join(_TARGETS)}; do printf '%s' "$TARGET" >/etc/units/$target.target; done
printf '%s' "$RECEIVER" >/opt/receiver/bin/receiver
chmod 755 /opt/receiver/bin/receiver
touch /run/console
mount --bind /run/console /dev/console
mount --make-rshared /
exec env -i container=test SYSTEMD_UNIT_PATH=/etc/units PATH="$PATH" {_SYSTEMD} --system --unit=dbus.service --log-target=console
"""
_RECEIVER = """#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/source:/opt/site LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python3 -m receiver "$@"
"""


def missing() -> str | None:
    """Return what this machine lacks for it, or None."""
    if os.geteuid() != 0:
        return "only root can boot a systemd of its own"
    programs = (_SYSTEMD, "dbus-daemon", "systemd-run", "systemd-sysusers", "unshare", "nsenter")
    lacking = [name for name in programs if not shutil.which(name)]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return None


class Host:
    """The systemd whose first process, seen from outside, is ``pid``."""

    def __init__(self, pid: int):
        self.pid = pid
        self.root = Path(f"/proc/{pid}/root")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run ``command`` there."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--ipc", "--uts"]
        ran = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=120, check=False)
        assert ran.returncode == 0 or not check, f"{shlex.join(command)}: {ran.stdout}{ran.stderr}"
        return ran

    def show(self, unit: str, name: str) -> str:
        """Return the property ``name`` of ``unit``."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).stdout.strip()

    def wait_for(self, unit: str, name: str, value: str, seconds: float = 30) -> None:
        """Wait until the property ``name`` of ``unit`` is ``value``."""
        said = f"{unit}: {name} is not {value}"
        until(lambda: self.show(unit, name) == value, seconds, lambda: f"{said}: {self.show(unit, name)}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file there, with its folders."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)


@contextlib.contextmanager
def booted() -> Iterator[Host]:
    """Boot it; yields it when it takes commands, and kills it and all that it started at the end."""
    told = {
        "PYTHON": sys.base_prefix,
        "SITE": sysconfig.get_path("purelib"),
        "SOURCE": str(REPOSITORY),
        "TARGET": _TARGET,
        "RECEIVER": _RECEIVER,
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    namespaces = ["--mount", "--pid", "--fork", "--mount-proc", "--cgroup", "--ipc", "--uts", "--kill-child"]
    process = subprocess.Popen(
        ["unshare", *namespaces, "sh", "-c", _START], env=told, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield _when_up(process)
    finally:
        process.kill()
        process.communicate()


def _when_up(process: subprocess.Popen) -> Host:
    def host():
        with contextlib.suppress(OSError, ValueError, AssertionError):
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            found = Host(int(child))
            found.run("systemctl", "is-active", "--quiet", "dbus.service")
            return found
        return None

    try:
        if isinstance(found := until(lambda: host() or process.poll() is not None, 30), Host):
            return found
    except AssertionError:
        process.kill()
    raise AssertionError(f"systemd did not come up: {process.communicate()[1].decode()}")
