"""What is examined: the settings and keys as they are now, and the receiver that runs with them, if there is one."""

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from receiver.doctor import impersonation
from receiver.keys import keyring
from receiver.keys.keyring import Keyring
from receiver.process.running import Service, base_of, services
from receiver.settings import Settings, read

_OF_STORE = ("DATABASE_URL", "JDBC_DATABASE_URL", "DATABASE_USERNAME", "DATABASE_PASSWORD")
_NEAREST = re.compile(r"there is no such setting; the nearest is (\w+)")
T = TypeVar("T")


class OutOfReach(Exception):
    """The process that was asked for cannot be examined from here; the text says how it can."""


@dataclass(frozen=True)
class Subject:
    """The ``settings`` that could be read and all ``mistakes`` in them; likewise the keys.

    ``service`` is the receiver that runs with them; None if there is none, or if it could be any of ``running``.
    ``environ`` is the environment it was started with, None if this process may not see it. ``pid`` is the process
    that was asked for, None for this process's own environment.
    """

    settings: Settings = field(default_factory=Settings)
    mistakes: tuple[str, ...] = ()
    ring: Keyring = field(default_factory=Keyring)
    key_mistakes: tuple[str, ...] = ()
    running: tuple[Service, ...] = ()
    service: Service | None = None
    environ: dict[str, str] | None = None
    pid: int | None = None

    def is_invalid(self, *names: str) -> bool:
        """Tell whether any of the settings ``names`` is invalid, so that ``settings`` holds its default instead."""
        given = {mistake.partition(":")[0] for mistake in self.mistakes}
        given |= {name for mistake in self.mistakes for name in _NEAREST.findall(mistake)}  # misspelled
        return any(name in given or f"{name}_FILE" in given for name in names)

    @property
    def has_store(self) -> bool:
        """Whether the settings say which store to use."""
        return not self.is_invalid(*_OF_STORE)


def find_subject(pid: int | None) -> Subject:
    """Return what to examine: the process ``pid``, or this environment. From here on this process is its user.

    Raises OutOfReach.
    """
    if pid is not None:
        _impersonate(pid)
    settings, mistakes = _settings()
    running = services(base_of(settings))
    service = _chosen(running, settings, pid)
    environ = _environment_of(service)
    if pid is None:
        try:
            user = impersonation.user_of(service.pid) if service else _owner_of_the_store(settings)
            if user:
                impersonation.become(user)
        except OSError:  # it has ended, or root may not become another user here
            service = None
        settings, mistakes = _settings()
    ring, key_mistakes = _attempt(lambda: keyring.load(settings), (Keyring(), []), "the keys")
    return Subject(settings, tuple(mistakes), ring, tuple(key_mistakes), tuple(running), service, environ, pid)


def _impersonate(pid: int) -> None:
    """Take the user, the working directory and the environment of the process ``pid``; raises OutOfReach."""
    try:
        if impersonation.has_other_root(pid):
            raise OutOfReach(f"process {pid} runs in a container: run `receiver doctor` inside it")
        user, environ = impersonation.user_of(pid), impersonation.environment_of(pid)
        os.chdir(f"/proc/{pid}/cwd")
        impersonation.become(user)
    except (FileNotFoundError, ProcessLookupError):
        raise OutOfReach(f"there is no process {pid}") from None
    except PermissionError:
        raise OutOfReach(f"process {pid} belongs to another user: run doctor as that user, or as root") from None
    impersonation.use_environment(environ)


def _settings() -> tuple[Settings, list[str]]:
    return _attempt(lambda: read(os.environ), (Settings(), []), "the settings")


def _attempt(load: Callable[[], tuple[T, list[str]]], nothing: tuple[T, list[str]], what: str) -> tuple[T, list[str]]:
    """Return what ``load`` returns: a value and its mistakes; if it raises, ``nothing`` and that as a mistake."""
    try:
        return load()
    except Exception as cause:  # noqa: BLE001 - a defect must not keep the doctor from the other checks
        return nothing[0], [f"{what} could not be read at all ({type(cause).__name__})"]


def _chosen(running: list[Service], settings: Settings, pid: int | None) -> Service | None:
    if pid is not None:
        return next((one for one in running if one.pid == pid), None)
    if len(running) == 1:
        return running[0]
    listen = settings.listen
    for same in (_is_address, _is_port):
        fitting = [one for one in running if any(same(address, listen) for address in one.addresses)]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _is_address(address: str, listen: str) -> bool:
    return address.partition("://")[2] == listen or address == listen


def _is_port(address: str, listen: str) -> bool:
    return not listen.startswith("unix:") and address.rpartition(":")[2] == listen.rpartition(":")[2]


def _environment_of(service: Service | None) -> dict[str, str] | None:
    with contextlib.suppress(OSError):
        return impersonation.environment_of(service.pid) if service else None
    return None


def _owner_of_the_store(settings: Settings) -> impersonation.User | None:
    """Return the owner of a store that is a file or a folder: the receiver that made it ran as that user."""
    path = settings.store_url.path
    if not path:
        return None
    return impersonation.owner_of(path) or impersonation.owner_of(os.path.dirname(os.path.abspath(path)))
