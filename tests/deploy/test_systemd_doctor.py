"""The doctor under systemd: it looks as the unit does."""

import pytest

from receiver.settings import parsers
from tests.support.doctoring import Report

pytestmark = pytest.mark.slow


def test_under_systemd_it_looks_as_the_unit_does(host, port):
    host.run("systemctl", "start", f"receiver@{port}")
    pid = host.show(f"receiver@{port}", "MainPID")
    keys = list((host.root / "etc/receiver/keys").glob("*.json"))
    for command in (
        f"sh /run/deploy/receiver-at {port} doctor --json --roundtrip",  # in a unit of its own, as that user
        f"/opt/receiver/bin/receiver doctor --json --roundtrip --pid {pid}",  # as root
    ):
        ran = host.run("sh", "-c", command, check=False)
        report = Report(ran.returncode, ran.stdout)
        assert [one.seen for one in report.worse_than_ok() if "no sealing key" not in one.seen] == []
        assert "as receiver: " in report.one("permissions", "ok").seen
        assert f"process {pid} at http://{parsers.every_address(port)}, " in report.one("service", "ok", "ready").seen
        report.one("roundtrip", "ok")
        assert f"{sum('platform' in path.name for path in keys)} platform" in report.one("keys", "ok").seen
    known = f"RUNTIME_DIRECTORY=/run/receiver/{port} PORT={port} STORAGE_KEYS=/etc/receiver/keys"
    report = Report(1, host.run("sh", "-c", f"{known} /opt/receiver/bin/receiver doctor --json", check=False).stdout)
    seen = report.one("service", "warn", "started with other settings", f"receiver doctor --pid {pid}").seen
    assert "STORAGE_KEYS" in seen
    assert "PORT" not in seen
    report.one("permissions", "fail", "/etc/receiver/keys cannot be read by receiver")
