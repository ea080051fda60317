"""The kind of file system that a path lies on: SQLite's write-ahead log does not work over a network."""

import os
import re
from pathlib import Path

_NETWORK = {
    *(
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "9p",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "ocfs2",
        "gfs2",
    ),
    *("glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.gcsfuse", "fuse.davfs", "davfs"),
    *("virtiofs", "fuse.juicefs", "fuse.blobfuse2", "fuse.ceph-fuse", "fuse.cephfs"),
}
_TABLE = Path("/proc/self/mountinfo")  # proc(5): "mount ID, parent, device, root, mount point, options … - type …"


def network_type(path: str | os.PathLike[str], table: Path = _TABLE) -> str | None:
    """Return the type of the network file system that ``path``, or its future folder, lies on; None for a local one.

    ``table`` is the kernel's list of mounts. Returns None, too, where it cannot be read.
    """
    real = os.path.realpath(path)
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    best, kind = "", None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # the last mount at the same point lies on top
            best, kind = point, after.split()[0]
    return kind if kind in _NETWORK else None
