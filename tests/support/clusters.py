"""A set of three PostgreSQL servers under Patroni, as data centres run it: etcd, synchronous replicas, failover."""

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from dataclasses import dataclass

from tests.support import servers
from tests.support.waiting import until

PROGRAMS = ("patroni", "patronictl", "etcd", "initdb")


@dataclass
class Patroni:
    """Three nodes; ``url`` names them all, and whoever connects finds the one that writes."""

    nodes: list[servers.Server]
    ports: list[int]
    config: str
    password: str

    def url(self, database: str) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"postgresql://postgres:{self.password}@{hosts}/{database}"

    def leader(self) -> servers.Server | None:
        """Return the node that writes, or None while there is none."""
        return next((node for node in self.nodes if _answers(node.port, "/primary")), None)

    def is_whole(self) -> bool:
        return self.leader() is not None and sum(_answers(node.port, "/replica") for node in self.nodes) == 2

    def wait(self, seconds: int = 90) -> None:
        until(self.is_whole, seconds, "the set of servers did not become whole", pause=0.5)

    def switch(self) -> None:
        """Hand the lead to another node, as an administrator does; return when another one leads."""
        command = [servers.program("patronictl"), "-c", self.config, "switchover", "--force"]
        before, said = self.leader(), []

        def leads_another():
            if self.leader() not in (None, before):
                return True
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
            said.append(done.stdout + done.stderr)
            return False

        until(leads_another, 60, lambda: said, pause=1)

    def kill_leader(self) -> servers.Server:
        """Kill the leading node, Patroni and PostgreSQL alike, and return it."""
        node = self.leader()
        with open(node.folder / "data/postmaster.pid") as file:
            postmaster = int(file.readline())
        node.process.kill()
        node.process.wait()
        subprocess.run(["kill", "-9", str(postmaster)], check=True)
        return node


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextlib.contextmanager
def patroni():
    """A set of three nodes with etcd, whole and with synchronous replication."""
    user = servers.unprivileged_user()
    with contextlib.ExitStack() as stack:
        etcd = _etcd(stack, user)
        made = Patroni([], [], "", "secret")
        for number in range(3):
            folder = stack.enter_context(servers.folder_for(user))
            api, port = servers.free_port(), servers.free_port()
            config = folder / "patroni.yml"
            config.write_text(json.dumps(_config(f"node{number}", folder, etcd.port, api, port)))  # JSON is YAML
            node = _Node([servers.program("patroni"), str(config)], folder, api, user)
            node.start()
            stack.callback(node.stop)
            made.nodes.append(node)
            made.ports.append(port)
            made.config = str(config)
        made.wait()
        yield made


class _Node(servers.Server):
    def stop(self, sign: int = signal.SIGINT) -> None:
        super().stop(sign)  # Patroni stops its PostgreSQL with itself


def _etcd(stack: contextlib.ExitStack, user: str | None) -> servers.Server:
    folder = stack.enter_context(servers.folder_for(user))
    port, peers = servers.free_port(), servers.free_port()
    here, among = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    words = ["--data-dir", str(folder / "data"), "--listen-client-urls", here, "--advertise-client-urls", here]
    words += ["--listen-peer-urls", among, "--initial-advertise-peer-urls", among, "--unsafe-no-fsync"]
    words += ["--initial-cluster", f"default={among}"]
    etcd = servers.Server([servers.program("etcd"), *words], folder, port, user)
    etcd.start()
    stack.callback(etcd.stop)
    return etcd


def _config(name: str, folder, etcd: int, api: int, port: int) -> dict:
    initdb = servers.program("initdb")
    return {
        "scope": "receiver",
        "name": name,
        "restapi": {"listen": f"127.0.0.1:{api}", "connect_address": f"127.0.0.1:{api}"},
        "etcd3": {"hosts": f"127.0.0.1:{etcd}"},
        "bootstrap": {
            "dcs": {"ttl": 20, "loop_wait": 2, "retry_timeout": 5, "synchronous_mode": True},
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}],
            "pg_hba": ["host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{port}",
            "connect_address": f"127.0.0.1:{port}",
            "data_dir": str(folder / "data"),
            "bin_dir": os.path.dirname(os.path.realpath(initdb)),
            "authentication": {
                "superuser": {"username": "postgres", "password": "secret"},
                "replication": {"username": "replicator", "password": "secret"},
            },
            "parameters": {"unix_socket_directories": str(folder), "password_encryption": "scram-sha-256"},
            "use_pg_rewind": True,
            "pgpass": str(folder / "pgpass"),
        },
    }
