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
        assert [one.message for one in report.worse_than_ok() if "no sealing key" not in one.message] == []
        assert "as receiver: " in report.one("permissions", "ok").message
        assert (
            f"process {pid} at http://{parsers.every_address(port)}, " in report.one("service", "ok", "ready").message
        )
        report.one("roundtrip", "ok")
        assert f"{sum('platform' in path.name for path in keys)} platform" in report.one("keys", "ok").message
    known = f"RUNTIME_DIRECTORY=/run/receiver/{port} PORT={port} STORAGE_KEYS=/etc/receiver/keys"
    report = Report(1, host.run("sh", "-c", f"{known} /opt/receiver/bin/receiver doctor --json", check=False).stdout)
    message = report.one("service", "warn", "started with other settings", f"receiver doctor --pid {pid}").message
    assert "STORAGE_KEYS" in message
    assert "PORT" not in message
    report.one("permissions", "fail", "/etc/receiver/keys cannot be read by receiver")
