"""gunicorn, configured: what ``receiver serve`` runs."""

import gc
import os
from collections.abc import Callable, Sequence

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger as GunicornLogger

from receiver import logs, worker
from receiver.app import create_app, open_configured
from receiver.keyring import Keyring
from receiver.settings import Settings
from receiver.stores.urls import Place

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - heartbeats on a busy disk would get healthy workers killed


class Logger(GunicornLogger):
    """gunicorn's messages in the receiver's own form; requests are logged by the application."""

    def setup(self, cfg) -> None:
        """Let the root logger's handler write what gunicorn says."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):
    """The receiver under gunicorn. ``on_ready`` is called with the addresses once it listens.

    ``unprepared`` are the places whose stores workers may create.
    """

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        on_ready: Callable[[list[str]], None],
        unprepared: Sequence[Place] = (),
    ):
        self.unprepared = unprepared
        self.settings = settings
        self.keyring = keyring
        self.on_ready = on_ready
        super().__init__()

    def load_config(self) -> None:
        """Set every gunicorn setting that differs from its default, and why."""
        worker.READ_TIMEOUT = self.settings.read_timeout
        options = {
            "bind": self.settings.listen,
            "worker_class": worker.Worker,
            "workers": self.settings.workers,
            "threads": self.settings.threads,
            "graceful_timeout": self.settings.graceful_timeout,
            "timeout": 60,  # a worker whose main thread is silent for that long is replaced
            "keepalive": 75,  # longer than the 60 s of common proxies, so that theirs closes first
            "control_socket_disable": True,
            "loglevel": logs.gunicorn_level(self.settings.log_level),
            "forwarded_allow_ips": ",".join(self.settings.trusted_proxies),
            "forwarder_headers": "",
            "header_map": "refuse",
            "limit_request_line": 4094,
            "limit_request_fields": 100,
            "limit_request_field_size": 8190,
            "logger_class": "receiver.server.Logger",
            "proc_name": "receiver",
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
            "when_ready": lambda arbiter: self.on_ready([str(one) for one in arbiter.LISTENERS]),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until told to stop."""
        gc.collect()  # here and not in each worker: looking through memory would end that they share it
        super().run()

    def load(self):
        """Return the application; called in each worker, so that nothing of a store is shared over a fork.

        Only the master, before, may create the store: a worker that starts later and finds none must not
        replace it by an empty one. Where the master could not, because a server was down, workers may.
        """
        store = open_configured(self.settings, self.keyring, self.unprepared.__contains__)
        self.keyring.uses.hand_to(store.note_key_uses)
        return create_app(self.settings, self.keyring, store)
