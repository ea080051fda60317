"""gunicorn's application for the process that listens on STORAGE_ADMIN_BIND."""

import time
from collections.abc import Callable
from wsgiref.types import WSGIApplication

from gunicorn.config import Config

from receiver.admin.listener import create_admin_app
from receiver.keys.keyring import Keyring
from receiver.network import tls
from receiver.network.addresses import AccessPolicy
from receiver.process.lifecycle import Lifecycle
from receiver.process.run_folder import RunFolder
from receiver.process.running import shared_memory
from receiver.settings import Settings
from receiver.stores.logins import Logins

_THREADS = 4
_CONNECTIONS = 10_000  # as many as a worker's


class AdminApplication:
    """The admin listener as a WorkerHost. ``refresh`` reloads keys as the workers do; ``terms`` returns the TLS terms.

    The listener itself speaks plain HTTP, and admits every client that reaches it.
    """

    title = "admin listener"
    access = AccessPolicy()
    read_timeout = 3.0  # seconds in which a probe must arrive
    tls_context = None

    def __init__(
        self,
        settings: Settings,
        ring: Keyring,
        life: Lifecycle,
        folder: RunFolder,
        refresh: Callable[[], list[str]],
        terms: Callable[[], tls.Terms | None],
        logins: Logins | None = None,
    ) -> None:
        self.settings, self.ring, self.life, self.folder = settings, ring, life, folder
        self.refresh, self.terms, self.logins = refresh, terms, logins
        self.public_prefix, self.max_body = settings.public_prefix, settings.max_body
        self.started = time.time()
        self.cfg = Config()
        for name, value in {
            "bind": settings.admin_bind,
            "workers": 1,
            "threads": _THREADS,
            "worker_connections": _CONNECTIONS,
            "graceful_timeout": 1,
            "timeout": 60,
            "worker_tmp_dir": shared_memory(),
            "limit_request_line": 1024,
            "limit_request_fields": 50,
            "control_socket_disable": True,
        }.items():
            self.cfg.set(name, value)

    @property
    def is_ending(self) -> bool:
        """Whether the receiver drains or stops."""
        return self.life.is_ending

    def warm_up(self) -> None:
        """Do nothing: probes come every few seconds at most."""

    def wsgi(self) -> WSGIApplication:
        """Return the WSGI application; the worker calls it after the fork."""
        return create_admin_app(self.settings, self.ring, self.life, self.folder, self.terms, self.logins, self.started)
