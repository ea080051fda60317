"""The end of a run: every worker is asked for what the journal knows, and the store itself is read."""

import multiprocessing
import time
from pathlib import Path

from tests.bench import processes
from tests.chaos.journal import Item, Journal, Operation
from tests.chaos.load import Sender
from tests.chaos.schedule import chance_of

_PROCESSES = multiprocessing.get_context("fork")
_TRYING = 10  # seconds to reach a worker
_FIRST = 900_000_000_000  # above all numbers of the load


def ask_workers(subject, keys, names, folder: Path, seed: int, seconds: float) -> list[Path]:
    """Ask each worker for as many of ``names`` (tenant, id) as it answers in so many seconds; return the journals.

    Each begins elsewhere in the same random order.
    """
    order = list(names)
    chance_of(seed, "final").shuffle(order)
    workers = [(receiver, pid) for receiver in subject.receivers for pid in receiver.workers()]
    journals, started = [], []
    for number, (receiver, pid) in enumerate(workers):
        journals.append(folder / f"journal-final-{number}.jsonl")
        at = len(order) * number // len(workers)
        own = order[at:] + order[:at]
        args = (receiver.url, receiver.port, pid, keys, own, journals[-1], _FIRST * (number + 1), seconds)
        started.append(_PROCESSES.Process(target=_ask, args=args, daemon=True))
        started[-1].start()
    for process in started:
        process.join(seconds + 60)
        if process.exitcode != 0:
            process.kill()
            raise RuntimeError(f"a process of the final loads ended with {process.exitcode}")
    return journals


def _ask(url, port, pid, keys, names, path, number, seconds) -> None:
    journal = Journal(path)
    senders: dict[str, Sender] = {}
    until = time.monotonic() + seconds
    for tenant, id in names:
        if time.monotonic() > until:
            break
        if tenant not in senders:
            senders[tenant] = _sender_to(pid, port, Sender(url, tenant, keys, journal, 30))
            operation = Operation(number, 0, "health", tenant, [])
            senders[tenant].send(operation, "GET", "/api/storage/1/health", None, {})
            number += 1
        senders[tenant].load(Operation(number, 0, "load", tenant, [Item(id)]))
        number += 1
    journal.close()


def _sender_to(pid: int, port: int, sender: Sender) -> Sender:
    """Connect ``sender`` to the worker ``pid``: which one accepts is chance, so it tries until it is that one."""
    until = time.monotonic() + _TRYING
    connection = sender.client.connection
    while time.monotonic() < until:
        connection.close()
        connection.connect()
        local = connection.sock.getsockname()[1]
        owner = None
        while owner is None and time.monotonic() < until:
            owner = processes.owners(port, [pid]).get(local) or _other(port, local, pid)
        if owner == pid:
            break
    sender.worker = pid
    return sender


def _other(port: int, local: int, pid: int) -> int | None:
    """Return another process that accepted the connection from ``local``, or None while none has."""
    siblings = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    found = processes.owners(port, [one for one in siblings if one != pid and _is_ours(one, pid)])
    return found.get(local)


def _is_ours(pid: int, sibling: int) -> bool:
    try:
        return _session(pid) == _session(sibling)
    except OSError:
        return False


def _session(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]
