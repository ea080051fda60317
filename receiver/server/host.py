"""What a worker asks of the application that gunicorn hands it."""

import ssl
from functools import cached_property
from typing import Protocol, runtime_checkable

from gunicorn.config import Config
from gunicorn.sock import ssl_context

from receiver.network.addresses import AccessPolicy

_READ_TIMEOUT = 30.0  # seconds
_MAX_BODY = 32 << 20  # bytes


@runtime_checkable
class WorkerHost(Protocol):
    """The application of a worker: the receiver's own, the admin listener's, or PlainHost.

    ``title`` names the process in the log. A request has ``read_timeout`` seconds for head and body; a body has
    ``max_body`` bytes at most.
    """

    title: str
    access: AccessPolicy
    public_prefix: str
    read_timeout: float
    max_body: int

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context for new connections; None for plain HTTP."""

    @property
    def is_ending(self) -> bool:
        """Whether the receiver drains or stops, so that clients should open another connection."""

    def warm_up(self) -> None:
        """Do what the first request would otherwise wait for, in a bounded time; called before a worker accepts any."""

    def refresh(self) -> list[str]:
        """Take the present keys and certificates; return what changed. Raises SettingsMistakes."""


class PlainHost:
    """Stands in for gunicorn's own application (``gunicorn -k receiver.server.worker.Worker``), which has no settings.

    TLS comes from gunicorn's options in ``config``. Such a receiver has no reload.
    """

    title = "worker"
    access = AccessPolicy()
    public_prefix = ""
    read_timeout = _READ_TIMEOUT
    max_body = _MAX_BODY
    is_ending = False

    def __init__(self, config: Config) -> None:
        self._config = config

    @cached_property
    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context that gunicorn's options describe; None for plain HTTP."""
        return ssl_context(self._config) if self._config.is_ssl else None

    def warm_up(self) -> None:
        """Do nothing: the application opens its store."""

    def refresh(self) -> list[str]:
        """Change nothing: keys are read at the start."""
        return []
