"""nginx, HAProxy and Caddy with the samples of deploy/proxy, as processes on loopback: changed only where an operator would."""

import contextlib
import csv
import os
import random
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from receiver.mock_platform.client import Answer, Client
from receiver.mock_platform.keys import StoreKeys
from tests.support import certificates, servers
from tests.support.paths import ROOT
from tests.support.serving import serving
from tests.support.waiting import until

SAMPLES = ROOT / "deploy" / "proxy"
PREFIX = "/flow"
# The lines that take the prefix off, as the samples show them behind "# ", and the line that each one stands for.
# Caddy has none: its `uri strip_prefix` merges slashes as well.
_TAKES_PREFIX_OFF = {
    "nginx": ("        proxy_pass http://receiver;  ", "        # proxy_pass http://receiver$receiver_path;"),
    "haproxy": ("", r"    # http-request replace-path ^/flow(/.*)$ \1"),
}
_AS_NOBODY_SPECIAL = ("    chroot /var/lib/haproxy\n", "    user haproxy\n", "    group haproxy\n")


class Receiver:
    """A receiver as the samples want it, on ports of its own; it may be stopped and started again.

    ``environment`` is added to what it is told. As a context it runs in it, unless it was stopped before its end.
    """

    def __init__(self, keys: StoreKeys, folder: Path, **environment: str):
        self.keys, self.folder = keys, folder
        self.port, self.admin = port_that_stays(), port_that_stays()
        self.environment = {
            "STORAGE_BIND": f"127.0.0.1:{self.port}",
            "STORAGE_ADMIN_BIND": f"127.0.0.1:{self.admin}",
            "STORAGE_PUBLIC_PREFIX": PREFIX,
            "STORAGE_TRUSTED_PROXIES": "127.0.0.1",
            **environment,
        }
        self._stack = contextlib.ExitStack()
        folder.mkdir(exist_ok=True)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def start(self) -> None:
        """Start it; return when it listens."""
        self.process = self._stack.enter_context(serving(self.keys, self.folder, **self.environment)).process

    def tell_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Return its exit status, once it has ended."""
        status = self.process.wait(90)
        self._stack.close()
        return status

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


class Behind(NamedTuple):
    """What stands where a receiver should: its ``port``, and the one that is asked whether it is ready."""

    port: int
    admin: int


@dataclass
class Proxy:
    """A proxy that answers at ``url``; everything of it is in ``folder``, what it logs in ``log``."""

    url: str
    folder: Path
    process: subprocess.Popen = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.url.removesuffix(PREFIX).rpartition(":")[2])

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def sent_again(self) -> int:
        """Return how many requests the proxy sent to more than one receiver, as its log tells."""
        return len(re.findall(r" s to \S+, |retries=[+]?[1-9]", self.log))

    def statuses(self) -> dict[str, str]:
        """Return what HAProxy thinks of each of its servers, by the name of it: UP, DOWN and what is between."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(10)
            asked.connect(str(self.folder / "admin.sock"))
            asked.sendall(b"show stat\n")
            said = b"".join(iter(lambda: asked.recv(1 << 16), b"")).decode()
        rows = csv.DictReader(said.removeprefix("# ").splitlines())
        return {row["svname"]: row["status"] for row in rows if row["pxname"] == "receivers"}

    def wait_until(self, name: str, status: str, seconds: float = 60) -> None:
        """Wait until HAProxy says ``status`` of the server ``name``."""
        said = f"{name} is not {status}"
        until(lambda: self.statuses()[name].startswith(status), seconds, lambda: f"{said}: {self.statuses()}")


class Platform(Client):
    """The platform's client of the store at ``url``, its path included: all that it calls and signs begins with that."""

    def __init__(self, url: str, tenant: str, keys: StoreKeys):
        super().__init__(url, tenant, keys, context=certificates.trusting())
        self.prefix = urlsplit(url).path

    def headers(self, path: str, /, **claims: object) -> dict[str, str]:
        return super().headers(self.prefix + path, **claims)

    def call(self, method: str, path: str, body: bytes | None = None, headers: dict | None = None) -> Answer:
        headers = self.headers(path) if headers is None else headers
        return super().call(method, self.prefix + path, body, headers)


def port_that_stays() -> int:
    """Return a free port that no outgoing connection will take while nobody listens on it."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        lowest = int(file.read().split()[0])
    while True:
        port = random.randrange(10_000, min(lowest, 65_000))
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Return ``text`` with each key of ``changes``, which must be there exactly once, as its value."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{text.count(old)} times in the sample: {old!r}"
        text = text.replace(old, new)
    return text


def nginx_sample(folder: Path, port: int, behind: Sequence[Receiver | Behind], takes_prefix_off: bool = False) -> str:
    """Return the sample for nginx with this machine's addresses and files: at most two receivers ``behind`` it."""
    changes = {
        "    listen 443 ssl;\n": f"    listen 127.0.0.1:{port} ssl;\n",
        "    listen [::]:443 ssl;\n": "",
        "/etc/nginx/tls/flow.pem;  ": f"{folder}/server.pem;",
        "/etc/nginx/tls/flow.key;  ": f"{folder}/server.key;",
        "/var/log/nginx/receiver.log": f"{folder}/access.log",
    }
    parameters = "max_fails=2 fail_timeout=5s;"
    for number, one in enumerate([*behind, None][:2], 11):
        line = f"    server 127.0.0.1:{one.port} {parameters}" if one else "    #"
        changes[f"    server 10.0.0.{number}:8080 {parameters}"] = line
    if takes_prefix_off:
        line, shown = _TAKES_PREFIX_OFF["nginx"]
        changes |= {line: "        # ", shown: shown.replace("# ", "")}
    return replaced((SAMPLES / "nginx" / "receiver.conf").read_text(), changes)


def haproxy_sample(folder: Path, port: int, behind: Sequence[Receiver | Behind], takes_prefix_off: bool = False) -> str:
    """Return the sample for HAProxy with this machine's addresses and files: at most three receivers ``behind`` it."""
    changes = {
        "    bind :443 ssl crt /etc/haproxy/tls/flow.pem  ": f"    bind 127.0.0.1:{port} ssl crt {folder}/both.pem",
        "/run/haproxy/admin.sock": f"{folder}/admin.sock",
        " check port 8081 ": " check ",
    }
    for number, name in enumerate(("one", "two", "three")):
        one = behind[number] if number < len(behind) else None
        line = f"    server {name} 127.0.0.1:{one.port} port {one.admin}" if one else "    #"
        changes[f"    server {name} 10.0.0.{11 + number}:8080"] = line
    if takes_prefix_off:
        _, shown = _TAKES_PREFIX_OFF["haproxy"]
        changes[shown] = shown.replace("# ", "")
    if os.getuid() != 0:
        changes |= dict.fromkeys(_AS_NOBODY_SPECIAL, "")
    return replaced((SAMPLES / "haproxy" / "haproxy.cfg").read_text(), changes)


def caddy_sample(folder: Path, port: int, behind: Sequence[Receiver | Behind], takes_prefix_off: bool = False) -> str:
    """Return the sample for Caddy with this machine's addresses and files: at most two receivers ``behind`` it.

    The sample asks every receiver at the same port whether it is ready; here that is the port of the first one.
    """
    assert not takes_prefix_off, "the sample for Caddy leaves the prefix on"
    changes = {
        "\tadmin localhost:2019\n": f"\tadmin off\n\thttp_port {port_that_stays()}\n",
        "flow.example.com {\n": f"https://:{port} {{\n\tbind 127.0.0.1\n",
        "\t# tls /etc/caddy/flow.pem /etc/caddy/flow.key\n": f"\ttls {folder}/server.pem {folder}/server.key\n",
        "\thealth_port 8081\n": f"\thealth_port {behind[0].admin}\n",
    }
    for number, one in enumerate([*behind, None][:2], 11):
        changes[f"\tto 10.0.0.{number}:8080\n"] = f"\tto 127.0.0.1:{one.port}\n" if one else ""
    return replaced((SAMPLES / "caddy" / "Caddyfile").read_text(), changes)


def write_nginx(folder: Path, sample: str) -> list[str]:
    """Write what nginx needs around the ``sample`` into ``folder``; returns the command that runs it."""
    user = "user root;\n" if os.getuid() == 0 else ""
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "receiver.conf").write_text(sample)
    (folder / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 2;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{ worker_connections 1024; }}\nhttp {{\n{paths}include {folder}/receiver.conf;\n}}\n"
    )
    return [servers.program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def write_haproxy(folder: Path, sample: str) -> list[str]:
    """Write the ``sample`` into ``folder``; returns the command that runs HAProxy with it."""
    (folder / "haproxy.cfg").write_text(sample)
    return [servers.program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def write_caddy(folder: Path, sample: str) -> list[str]:
    """Write the ``sample`` into ``folder``; returns the command that runs Caddy with it, and keeps its files there."""
    (folder / "Caddyfile").write_text(sample)
    home = [f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}"]
    return ["env", *home, servers.program("caddy"), "run", "--config", str(folder / "Caddyfile")]


KINDS = {
    "nginx": (nginx_sample, write_nginx),
    "haproxy": (haproxy_sample, write_haproxy),
    "caddy": (caddy_sample, write_caddy),
}


@contextlib.contextmanager
def a_proxy(kind: str, behind: Sequence[Receiver | Behind], takes_prefix_off: bool = False) -> Iterator[Proxy]:
    """Run nginx, HAProxy or Caddy, the ``kind``, with its sample before the receivers ``behind`` it."""
    sample, write = KINDS[kind]
    with servers.folder_for(None) as folder:
        certificates.write(folder)
        (folder / "both.pem").write_bytes((folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes())
        port = port_that_stays()
        command = write(folder, sample(folder, port, behind, takes_prefix_off))
        with open(folder / "output.log", "w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        proxy = Proxy(f"https://127.0.0.1:{port}{PREFIX}", folder, process)
        try:
            _await(proxy)
            yield proxy
        finally:
            process.terminate()
            process.wait(30)


def _await(proxy: Proxy) -> None:
    def answers():
        assert proxy.process.poll() is None, proxy.log
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", proxy.port), timeout=5):
            return True

    until(answers, 60, lambda: f"the proxy does not answer: {proxy.log}")
