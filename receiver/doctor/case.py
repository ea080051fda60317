"""Who is looked at: settings and keys as they are found, and the receiver that runs here with them, if one does."""

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from receiver.doctor import eyes
from receiver.keys import keyring
from receiver.keys.keyring import Keyring
from receiver.process.running import Service, base_of, services
from receiver.settings import Settings, read

_OF_STORE = ("DATABASE_URL", "JDBC_DATABASE_URL", "DATABASE_USERNAME", "DATABASE_PASSWORD")
_NEAREST = re.compile(r"there is no such setting; the nearest is (\w+)")
T = TypeVar("T")


class Elsewhere(Exception):
    """The process that is meant cannot be looked at from here; the text says from where it can."""


@dataclass(frozen=True)
class Case:
    """The ``settings`` that could be read and the ``mistakes`` in all of them; the same of keys.

    ``service`` is the receiver that runs with them, None if none does or it is not known which of ``running`` it is;
    ``environ`` what it was started with, None where that may not be seen. ``pid`` is the process that was asked for,
    None for the settings of this one.
    """

    settings: Settings = field(default_factory=Settings)
    mistakes: tuple[str, ...] = ()
    ring: Keyring = field(default_factory=Keyring)
    key_mistakes: tuple[str, ...] = ()
    running: tuple[Service, ...] = ()
    service: Service | None = None
    environ: dict[str, str] | None = None
    pid: int | None = None

    def is_mistaken(self, *names: str) -> bool:
        """Tell whether any of the settings ``names`` could not be understood, so that its default stands there."""
        given = {mistake.partition(":")[0] for mistake in self.mistakes}
        given |= {name for mistake in self.mistakes for name in _NEAREST.findall(mistake)}  # what it was meant for
        return any(name in given or f"{name}_FILE" in given for name in names)

    @property
    def has_store(self) -> bool:
        """Whether it is known which store is meant."""
        return not self.is_mistaken(*_OF_STORE)


def begin(pid: int | None) -> Case:
    """Return the case of the process ``pid``, or of this one's environment; from now on this one has its user's eyes.

    Raises Elsewhere.
    """
    if pid is not None:
        _be_like(pid)
    settings, mistakes = _settings()
    running = services(base_of(settings))
    service = _chosen(running, settings, pid)
    environ = _environment_of(service)
    if pid is None:
        try:
            seen_by = eyes.user_of(service.pid) if service else _owner_of_the_store(settings)
            if seen_by:
                eyes.become(seen_by)
        except OSError:  # it has ended, or root may not become another user here
            service = None
        settings, mistakes = _settings()
    ring, key_mistakes = _tried(lambda: keyring.load(settings), (Keyring(), []), "the keys")
    return Case(settings, tuple(mistakes), ring, tuple(key_mistakes), tuple(running), service, environ, pid)


def _be_like(pid: int) -> None:
    """Look with the eyes of the process ``pid``: as its user, in its folder, with its environment."""
    try:
        if eyes.has_other_root(pid):
            raise Elsewhere(f"process {pid} runs in a container: run `receiver doctor` inside of it")
        user, environ = eyes.user_of(pid), eyes.environment_of(pid)
        os.chdir(f"/proc/{pid}/cwd")
        eyes.become(user)
    except (FileNotFoundError, ProcessLookupError):
        raise Elsewhere(f"there is no process {pid}") from None
    except PermissionError:
        raise Elsewhere(f"process {pid} is another user's: run doctor as that user, or as root") from None
    eyes.take_over(environ)


def _settings() -> tuple[Settings, list[str]]:
    return _tried(lambda: read(os.environ), (Settings(), []), "the settings")


def _tried(look: Callable[[], tuple[T, list[str]]], nothing: tuple[T, list[str]], what: str) -> tuple[T, list[str]]:
    """Return what ``look`` finds, with its mistakes; ``nothing``, and that as a mistake, when it fails altogether."""
    try:
        return look()
    except Exception as cause:  # a defect must not keep the doctor from the rest
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
        return eyes.environment_of(service.pid) if service else None
    return None


def _owner_of_the_store(settings: Settings) -> eyes.User | None:
    """Return whose the store is, where it is a file or a folder: the receiver that made it ran as that user."""
    path = settings.store_url.path
    return eyes.owner_of(path) or eyes.owner_of(os.path.dirname(os.path.abspath(path))) if path else None
