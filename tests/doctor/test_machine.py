"""The doctor on the machine: disks, folders and versions."""

import dataclasses
import shutil

from receiver.doctor.checks import machine
from receiver.doctor.subject import Subject
from receiver.settings import Settings, read
from tests.support.doctoring import reported


def test_disks_that_are_full_or_soon_will_be(tmp_path):
    free = shutil.disk_usage(tmp_path).free

    def disk(least):
        environ = {"DATABASE_URL": f"sqlite:///{tmp_path}/states.db", "STORAGE_RUN_DIR": str(tmp_path)}
        return reported(machine.check_disk(Subject(dataclasses.replace(read(environ)[0], min_free=least))))

    disk(2 * free).one("disk", "fail", "less than STORAGE_MIN_FREE", "receiver store purge")
    disk(free // 2).one("disk", "warn", "are free for SQLite")
    assert disk(0).worse_than_ok() == []


def test_a_folder_of_keys_that_everybody_may_write(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(0o777)
    report = reported(machine.check_permissions(Subject(Settings(keys=tmp_path / "keys"))))
    report.one("permissions", "fail", "may put a key into", f"chmod o-w {tmp_path}/keys")


def test_versions_are_told_with_those_of_the_drivers_that_are_needed():
    settings, _ = read({"DATABASE_URL": "postgresql://h/d"})
    (found,) = machine.check_versions(Subject(settings))
    for part in ("receiver ", "Python 3.", "gunicorn 2", "OpenSSL", "SQLite 3.", "psycopg 3."):
        assert part in found.message
