"""Fixtures for the tests of deployments."""

import os

import pytest

from tests.support import systemd_host
from tests.support.systemd_units import FOLDER, four_digits, give_keys


@pytest.fixture(scope="module")
def host(keys):
    """A machine with the units installed as the README does it; what each writes is in /run/log-<unit>."""
    lacks = systemd_host.missing()
    if lacks and os.environ.get("CI"):
        pytest.fail(lacks)
    if lacks:
        pytest.skip(lacks)
    with systemd_host.booted() as machine:
        machine.run("sh", "-ec", "cp /run/deploy/*.service /run/deploy/*.timer /etc/units/")
        machine.run("systemd-sysusers", "/run/deploy/receiver.sysusers")
        machine.run("install", "-d", "-m", "0700", "/etc/receiver/keys")
        for name in ("receiver@", "receiver-purge@"):
            log = "[Service]\nStandardOutput=append:/run/log-%N\nStandardError=append:/run/log-%N\n"
            machine.write(f"/etc/units/{name}.service.d/log.conf", log)
        give_keys(machine, keys)
        machine.run("systemctl", "daemon-reload")
        yield machine


@pytest.fixture
def port(host):
    """The port of an instance of the test's own, with the settings of the example."""
    found = four_digits()
    host.write(f"/etc/receiver/{found}.env", (FOLDER / "receiver.env").read_text() + "STORAGE_DRAIN=0\n")
    yield found
    host.run("systemctl", "stop", f"receiver@{found}", check=False)
    host.run("systemctl", "reset-failed", check=False)
