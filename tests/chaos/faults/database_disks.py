"""A database server whose disk is full; and a set of servers whose leader is lost."""

import contextlib
import os
import random
import signal
import subprocess
from pathlib import Path

from tests.chaos.faults import POSTGRESQL, fault
from tests.chaos.faults.databases import DatabaseFault
from tests.support import clusters
from tests.support.waiting import pass_time, until

_SIZES = {"postgresql": 400, "mariadb": 700}  # MB of disk
_MOUNT = """
mount -t tmpfs -o size={size}m,mode=700 tmpfs {data}/../disk && chown --reference={data} {data}/../disk &&
cp -a {data}/. {data}/../disk && mount --bind {data}/../disk {data} && echo ready && exec sleep 100000
"""


@fault
class DatabaseDiskFull(DatabaseFault):
    """The server's data lie on a small tmpfs in a mount namespace, which a sleeping process keeps."""

    name = "database-disk-full"
    injects = "the database server's disk is filled, and freed after 2 to 6 s; a server that has ended is started then"
    guarantees = (
        "Nothing acknowledged is lost or stale; meanwhile 507 or 503, in time; the first 2xx within 2 s after the disk is"
        " freed."
    )
    lasts = (2.0, 6.0)
    needs = ("unshare", "nsenter", "setpriv")
    overhead = 20.0

    def prepare(self, subject):
        server = subject.store.server
        server.stop()
        data = server.folder / "data"
        (server.folder / "disk").mkdir()
        text = _MOUNT.format(size=_SIZES[subject.store.kind], data=data)
        keeper = subprocess.Popen(["unshare", "--mount", "sh", "-c", text], stdout=subprocess.PIPE, text=True)
        subject.memory["keeper"] = keeper
        assert keeper.stdout.readline() == "ready\n", "the small disk could not be mounted"
        inside = ["nsenter", f"--target={keeper.pid}", "--mount", "--wd=/", "--"]
        if server.user:
            inside += ["setpriv", f"--reuid={server.user}", f"--regid={server.user}", "--clear-groups"]
        if subject.store.kind == POSTGRESQL:
            server.command += ["-c", "max_wal_size=64MB", "-c", "min_wal_size=32MB"]
        server.command, server.user = [*inside, *server.command], None
        server.start()

    def inject(self, subject, step):
        server, keeper = subject.store.server, subject.memory["keeper"]
        filler = Path(f"/proc/{keeper.pid}/root{server.folder}/data/filler")
        try:
            self._fill(filler, step.lasts)
        finally:
            with contextlib.suppress(FileNotFoundError):
                filler.unlink()
        if server.process.poll() is not None or not self._answers(server):
            _kill(server)
            server.start()

    def _fill(self, filler: Path, seconds: float) -> None:
        """Take all room again and again, also what the server frees."""
        with open(filler, "wb") as file:
            for _ in range(round(10 * seconds)):
                with contextlib.suppress(OSError):
                    while True:
                        os.write(file.fileno(), bytes(1 << 16))
                pass_time(0.1, "how long the disk is full")

    def _answers(self, server) -> bool:
        with contextlib.suppress(Exception):
            server.check()
            return True
        return False

    def tidy(self, subject):
        server, keeper = subject.store.server, subject.memory.get("keeper")
        _kill(server)
        if keeper:
            keeper.kill()
            keeper.wait()
            keeper.stdout.close()


def _kill(server) -> None:
    if server.process.poll() is None:
        server.signal_all(signal.SIGKILL)
        server.process.wait()


@fault
class Failover(DatabaseFault):
    """Three PostgreSQL servers under Patroni, with synchronous replication."""

    name = "database-failover"
    stores = (POSTGRESQL,)
    injects = "the lead goes to another server of three, by a switch or by kill -9 of the leader"
    guarantees = "Nothing acknowledged is lost or stale; 503 until another one leads."
    every = (10.0, 20.0)
    lasts = (0.0, 0.0)
    recovers_within = 10.0  # from when the set is whole: connections to the former leader have to be found dead
    seconds = 180
    sample_seconds = None
    overhead = 60.0
    needs = clusters.PROGRAMS

    def details(self, chance: random.Random):
        return {"how": chance.choice(("switch", "kill"))}

    def prepare(self, subject):
        stack = subject.memory["stack"] = contextlib.ExitStack()
        cluster = subject.memory["cluster"] = stack.enter_context(clusters.patroni())
        subject.store.url = subject.environment["DATABASE_URL"] = cluster.url("postgres")

    def inject(self, subject, step):
        cluster: clusters.Patroni = subject.memory["cluster"]
        if step.details["how"] == "switch":
            cluster.switch()
        else:
            killed = cluster.kill_leader()
            until(cluster.leader, 60, "no other node leads", pause=0.2)
            killed.start()
        cluster.wait()

    def tidy(self, subject):
        if stack := subject.memory.get("stack"):
            stack.close()
