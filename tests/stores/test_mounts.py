"""A file system of the network is recognised, and SQLite is not put on it."""

import pytest

from receiver.problems import StoreMisplaced
from receiver.stores import open_store
from receiver.stores.mounts import network_type
from receiver.stores.sqlite import place

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /mnt/share rw shared:1 - nfs4 server:/export rw
31 30 0:27 / /mnt/share/local rw - xfs /dev/vdb rw
32 22 0:28 / /mnt/with\\040space rw - cifs //server/share rw
33 22 0:29 / /mnt/twice rw - nfs server:/a rw
34 22 0:30 / /mnt/twice rw - ext4 /dev/vdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/share", "nfs4"),
        ("/mnt/share/a/b.db", "nfs4"),
        ("/mnt/shared/b.db", None),
        ("/mnt/share/local/b.db", None),
        ("/mnt/with space/b.db", "cifs"),
        ("/mnt/twice/b.db", None),
        ("/var/lib/b.db", None),
    ],
)
def test_the_mount_that_lies_on_top_counts(tmp_path, path, kind):
    (tmp_path / "mountinfo").write_text(TABLE)
    assert network_type(path, tmp_path / "mountinfo") == kind


def test_where_the_mounts_cannot_be_read_nothing_is_refused(tmp_path):
    assert network_type("/mnt/share", tmp_path / "missing") is None
    assert network_type(tmp_path) is None  # the real table, and the disk of this machine


def test_sqlite_on_a_network_stops_with_what_to_do_and_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(place, "network_type", lambda _path: "nfs4")
    with pytest.raises(StoreMisplaced, match=r"lies on nfs4.*use a local disk"):
        open_store(f"sqlite:///{tmp_path}/x.db", 1).prepare()
    assert list(tmp_path.iterdir()) == []
