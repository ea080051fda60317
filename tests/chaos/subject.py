"""What is under test: one store, and receivers on it that a keeper starts again as a service manager would."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from receiver.mock_platform.keys import StoreKeys
from tests.bench import processes
from tests.chaos.faults import Fault
from tests.chaos.stores import StoreUnderTest
from tests.support.servers import free_port
from tests.support.waiting import pass_time, until

STORE_TIMEOUT = 5  # seconds: STORAGE_STORE_TIMEOUT of every receiver under test
RESTART_AFTER = 0.2  # seconds until the keeper starts a receiver that has ended
_STARTS_WITHIN = 60
_NO_RESTART = 78  # RestartPreventExitStatus of the unit in deploy/systemd


@dataclass
class End:
    """That a process has ended: when, which, and whether a fault had meant it to."""

    at: float
    what: str
    was_meant: bool


class Receiver:
    """One receiver at a port of its own, with its log in a file; ``subject`` says how it is started."""

    def __init__(self, subject: "Subject", number: int) -> None:
        self.subject, self.number = subject, number
        self.port, self.admin_port = free_port(), free_port()
        self.log = subject.folder / f"receiver-{number}.log"
        self.process: subprocess.Popen | None = None
        self.is_wanted = False  # whether the keeper starts it again
        self.last_status: int | None = None  # that of the last process that has ended

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> None:
        """Start it; return at once."""
        subject = self.subject
        self.is_wanted = True
        environment = subject.environment | {
            "STORAGE_BIND": f"127.0.0.1:{self.port}",
            "STORAGE_ADMIN_BIND": f"127.0.0.1:{self.admin_port}",
        }
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                subject.command(self),
                env=environment,
                cwd=subject.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subject.stderr(self) or log,
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Whether health answers 200 now."""
        return _status(f"{self.url}/api/storage/1/health") == 200

    def probes(self) -> dict[str, int | None]:
        """Return the status of each probe of its admin listener; none where it has no such listener."""
        if "command" in self.subject.memory:
            return {}
        return {name: _status(f"http://127.0.0.1:{self.admin_port}/{name}") for name in ("livez", "readyz", "metrics")}

    def wait(self, seconds: float = _STARTS_WITHIN) -> None:
        """Wait until it answers; fails when it does not."""
        until(self.answers, seconds, lambda: f"receiver {self.number} does not answer: {self.last_lines()}")

    def wait_for_restart(self, seconds: float = _STARTS_WITHIN) -> None:
        """Wait until the keeper has started it again, after a fault has ended it, and it answers."""
        ended = self.pid
        until(lambda: self.pid != ended or not self.is_wanted, seconds, f"receiver {self.number} was not started again")
        self.wait(seconds)

    def workers(self) -> list[int]:
        """Return the pids of its workers: those of its processes, but for the master, that listen at its port."""
        if self.process is None or self.process.poll() is not None:
            return []
        listening = _listening(self.port)
        return [pid for pid in self.family()[1:] if listening & _sockets(pid)]

    def family(self) -> list[int]:
        """Return the pids of all its processes."""
        found = [self.pid]
        for pid in found:  # it grows meanwhile
            with contextlib.suppress(OSError):
                found += processes.children(pid)
        return found

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to one of its processes, whose end is then meant."""
        self.subject.meant.add(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill_worker(self, pid: int) -> None:
        """Kill a worker; note when, and which connections it had."""
        subject = self.subject
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGSTOP)  # so that it accepts no other meanwhile
            ports = processes.owners(self.port, [pid])
            subject.struck = (time.monotonic(), frozenset(ports))
            self.kill(pid)

    def kill_all(self) -> None:
        """Kill every process of it at once: those of its session."""
        self.subject.meant.update(self.family())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, seconds: float = 60) -> int:
        """End it by SIGTERM for good; return its exit status."""
        self.is_wanted = False
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.kill(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            return -signal.SIGKILL

    def last_lines(self) -> str:
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


def _status(url: str) -> int | None:
    """Return the status of the answer at ``url``, None without one."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except OSError:
        return None


def _listening(port: int) -> set[str]:
    """Return the sockets that listen at ``port``, as /proc names them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port}


def _sockets(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(file))
    return found


@dataclass
class Subject:
    """A run's ``store`` and ``receivers``; faults change ``environment``, ``wrapper`` and ``program`` before the start.

    ``wrapper`` are words before the command (prlimit, unshare, a shim). ``memory`` is the fault's own. ``meant`` are the
    processes whose end a fault wanted; ``ends`` are all ends that the keeper saw. ``struck`` is when the present injection
    really struck, if that is not when it began, and which connections (the clients' ports) it ended, if nothing else;
    ``healed`` is when it was over, if that is not when it returned: when a receiver was started again.
    """

    fault: Fault
    store: StoreUnderTest
    folder: Path
    keys: StoreKeys
    environment: dict[str, str] = field(default_factory=dict)
    wrapper: list[str] = field(default_factory=list)
    program: list[str] = field(default_factory=lambda: [sys.executable, "-m", "receiver"])
    receivers: list[Receiver] = field(default_factory=list)
    memory: dict[str, object] = field(default_factory=dict)
    meant: set[int] = field(default_factory=set)
    ends: list[End] = field(default_factory=list)
    struck: tuple[float, frozenset[int] | None] | None = None
    healed: float | None = None

    def command(self, receiver: Receiver) -> list[str]:
        """Return the command of ``receiver``; a fault may set ``memory["command"]``, a function that makes it."""
        make = self.memory.get("command")
        return [*self.wrapper, *(make(receiver) if make else [*self.program, "serve"])]

    def stderr(self, receiver: Receiver):
        """Return what the receiver logs to, or None for its file; a fault may set ``memory["stderr"]``."""
        return self.memory.get("stderr")


def environment_of(store: StoreUnderTest, keys: StoreKeys, folder: Path, workers: int) -> dict[str, str]:
    """Return the environment of a receiver under test."""
    (folder / "run").mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "HOME", "PYTHONPATH")}
    return clean | {
        "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), clean.get("PYTHONPATH")))),
        "DATABASE_URL": store.url,
        "PLATFORM_KEY": json.dumps(keys.platform.public()),
        "RECEIVER_KEY": json.dumps(keys.receiver.private()),
        "STORAGE_KEYS": str(folder / "keys"),
        "STORAGE_LOG_FORMAT": "json",
        "STORAGE_MIN_FREE": "1MiB",  # some faults have a small disk
        "STORAGE_RUN_DIR": str(folder / "run"),
        "STORAGE_STORE_TIMEOUT": str(STORE_TIMEOUT),
        "STORAGE_THREADS": "8",
        "STORAGE_WORKERS": str(workers),
        "TMPDIR": str(folder / "tmp"),
    }


class Keeper(threading.Thread):
    """Starts receivers again that have ended, as a service manager does; not those that ended with 78."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(daemon=True)
        self.subject, self.is_over = subject, threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.02):
            for receiver in self.subject.receivers:
                if receiver.is_wanted and receiver.process.poll() is not None:
                    self._start_again(receiver)

    def _start_again(self, receiver: Receiver) -> None:
        status = receiver.last_status = receiver.process.returncode
        meant = receiver.pid in self.subject.meant
        self.subject.ends.append(End(time.monotonic(), f"receiver {receiver.number} ended with {status}", meant))
        if status == _NO_RESTART:
            receiver.is_wanted = False
            return
        if not self.is_over.wait(RESTART_AFTER) and receiver.is_wanted:
            self.subject.healed = time.monotonic()
            receiver.start()


@contextlib.contextmanager
def running(subject: Subject) -> Iterator[Subject]:
    """Start the receivers of ``subject`` and keep them running; at the end none of their processes is left."""
    (subject.folder / "keys").mkdir(exist_ok=True)
    (subject.folder / "tmp").mkdir(exist_ok=True)
    subject.receivers = [Receiver(subject, number) for number in range(1, subject.fault.receivers + 1)]
    keeper = Keeper(subject)
    try:
        for receiver in subject.receivers:
            receiver.start()
            receiver.wait()
            until(lambda one=receiver: len(one.workers()) >= subject.fault.workers, 10, "a worker is missing")
        keeper.start()
        yield subject
    finally:
        keeper.is_over.set()
        for receiver in subject.receivers:
            receiver.is_wanted = False
        if keeper.ident:
            keeper.join()
        for receiver in subject.receivers:
            if receiver.process and receiver.process.poll() is None:
                receiver.kill_all()


def settle(subject: Subject, seconds: float = 60) -> None:
    """Wait until every receiver that is wanted answers and has its workers."""
    for receiver in subject.receivers:
        if receiver.is_wanted:
            receiver.wait(seconds)
            until(lambda one=receiver: len(one.workers()) >= subject.fault.workers, 30, "a worker is missing")
    pass_time(0.1, "a worker that has started takes a moment to accept")
