"""Configures gunicorn, and runs the receiver under it: ``receiver serve``."""

import contextlib
import gc
import os
import resource
import signal
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from wsgiref.types import WSGIApplication

from gunicorn.app.base import BaseApplication
from gunicorn.config import Config
from gunicorn.glogging import Logger as GunicornLogger

from receiver.app import create_app
from receiver.bootstrap import configure_anew, open_configured
from receiver.files import ownership
from receiver.keys.keyring import Keyring
from receiver.network import tls
from receiver.network.addresses import AccessPolicy
from receiver.network.listeners import AddressTaken
from receiver.problems import Problem
from receiver.process import running
from receiver.process.lifecycle import Lifecycle
from receiver.process.run_folder import RunFolder
from receiver.server import heads, reload, worker
from receiver.server.admin_application import AdminApplication
from receiver.server.arbiter import Master
from receiver.server.reload_check import Snapshot, check_stores, urls_after_reload
from receiver.settings import Settings, SettingsMistakes
from receiver.stores.contract import Store
from receiver.stores.logins import Logins, login_of
from receiver.stores.urls.store_url import StoreURL
from receiver.telemetry import logs

_CONNECTIONS = 10_000  # per worker; an idle one takes some KiB, and clients soon hold gunicorn's default of 1000
_FILES = 65_536
_WARMING = 0.5  # seconds; a store that takes longer is slow or down, and requests are answered nevertheless
_NOBODY = str(uuid.UUID(int=0))
_FOLLOW_EVERY = 2.0  # seconds between attempts to read the same keys as the master
_FOLLOW_FOR = 60.0  # seconds of these attempts; then the process ends, and its successor gets the keys of the master


def _allow_files() -> None:
    """Raise the limit of open files of this process and its workers, which a shell sets low."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class Logger(GunicornLogger):
    """gunicorn's messages in the receiver's own form; requests are logged by the application."""

    def setup(self, cfg: Config) -> None:
        """Let the root logger's handler write gunicorn's messages."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):
    """The receiver under gunicorn, as a WorkerHost. Raises SettingsMistakes for mistakes in the TLS settings.

    Calls ``on_ready`` with its addresses, and the address of the admin listener or None. Workers may create the stores
    of ``unprepared``. ``run`` sets ``folder``.
    """

    title = "worker"

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        on_ready: Callable[[list[str], str | None], None],
        unprepared: Sequence[StoreURL] = (),
    ) -> None:
        self.unprepared = unprepared
        self.settings = settings
        self.keyring = keyring
        self.on_ready = on_ready
        self.access = AccessPolicy(settings.allow_from, settings.trusted_proxies)
        self.public_prefix, self.max_body = settings.public_prefix, settings.max_body
        self.read_timeout = settings.read_timeout
        self.has_folder = settings.keys.is_dir()
        self.life = Lifecycle()
        self.folder: RunFolder
        self.admin: AdminApplication | None = None
        self.logins = Logins(settings.store_urls, are_watched=True)
        self.tls: tls.Terms | None = None
        self._store: Store  # set by load, in a worker
        self._master, self._salt = os.getpid(), os.urandom(32)
        self._take_tls(self._terms_of(settings))
        super().__init__()

    @property
    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context for new connections; None for plain HTTP."""
        return self.tls.context if self.tls else None

    @property
    def is_ending(self) -> bool:
        """Whether the receiver drains or stops."""
        return self.life.is_ending

    def load_config(self) -> None:
        """Set every gunicorn setting that differs from its default."""
        options = {
            "bind": self.settings.listen,
            "worker_class": worker.Worker,
            "workers": self.settings.workers,
            "threads": self.settings.threads,
            "graceful_timeout": self.settings.graceful_timeout,
            "timeout": 60,  # the master replaces a worker whose main thread is silent for longer
            "keepalive": self.settings.keep_alive,
            "worker_connections": _CONNECTIONS,
            "control_socket_disable": True,
            "certfile": self.settings.tls_cert or None,
            "keyfile": self.settings.tls_key or None,
            "loglevel": logs.gunicorn_level(self.settings.log_level),
            "forwarded_allow_ips": ",".join(self.settings.trusted_proxies),
            "forwarder_headers": "",
            "header_map": "drop",  # so that nothing mistakes X_ManyWho_Signature for the signature
            "limit_request_line": 4094,
            "limit_request_fields": heads.MOST_HEADERS,
            "limit_request_field_size": self.settings.max_header,
            "logger_class": "receiver.server.application.Logger",
            "proc_name": "receiver",
            "worker_tmp_dir": running.shared_memory(),  # on a busy disk, workers would look silent and be killed
            "when_ready": self._introduce,
            "pre_fork": lambda master, one: master.prepare_worker(one),
            "post_fork": lambda master, one: master.enter_worker(one),
            "on_exit": lambda _master: self.folder.remove(),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until a signal ends it. Raises SettingsMistakes when no run folder can be created."""
        _allow_files()
        self.life.accept(Snapshot(self.settings, self.keyring, self.tls).digest(self._salt))
        base = running.base_of(self.settings)
        try:
            self.folder = RunFolder(base)
        except OSError as cause:
            raise SettingsMistakes(
                [f"STORAGE_RUN_DIR: cannot create a folder in {base} ({cause.strerror}){ownership(base)}"]
            ) from None
        if self.settings.admin_bind != "off":
            ours = self.settings, self.keyring, self.life, self.folder
            self.admin = AdminApplication(*ours, self.refresh, lambda: self.tls, self.logins)
        gc.collect()  # here, not in each worker: a collection there would copy the memory that the workers share
        try:
            Master(self).run()
        except (AddressTaken, SettingsMistakes):
            self.folder.remove()
            raise

    def _introduce(self, master: Master) -> None:
        """Publish the addresses, to people and to the commands that look for this receiver."""
        addresses = [self._address(one) for one in master.LISTENERS]
        admin = str(master.admin_sockets[0]) if master.admin_sockets else None
        self.folder.introduce(addresses, admin)
        self.on_ready(addresses, admin)

    def refresh(self) -> list[str]:
        """Take the present keys, logins and certificates, all or none; return what changed. Raises SettingsMistakes.

        The master decides by the rules of a start, and asks the stores where these require it. Every other process
        takes the same as the master, and waits until it can read the same.
        """
        candidate = self._read_again()
        if os.getpid() == self._master:
            check_stores(Snapshot(self.settings, self.keyring, self.tls), self.logins, candidate)
            changes = self._take(candidate)
            self.life.accept(candidate.digest(self._salt))
            return changes
        until = time.monotonic() + _FOLLOW_FOR
        while candidate.digest(self._salt) != self.life.accepted:
            if time.monotonic() >= until:
                logs.log.warning("the files have changed since the master read them; another process replaces this one")
                os.kill(os.getpid(), signal.SIGTERM)
                raise SettingsMistakes(["the files no longer hold what the receiver took"])
            time.sleep(_FOLLOW_EVERY)
            candidate = self._read_again()
        return self._take(candidate)

    def _read_again(self) -> Snapshot:
        """Read settings, keys and certificates again. Raises SettingsMistakes for all mistakes but those of stores."""
        with self.folder.trial_keys() as trial:
            settings, keyring = configure_anew(trial)
        if self.has_folder and not settings.keys.is_dir():
            raise SettingsMistakes([f"{settings.keys}: the directory of keys is gone (is the volume mounted?)"])
        if self.keyring.sealing and not keyring.sealing:
            raise SettingsMistakes(["STORAGE_SEALING_KEY: no sealing key is left; a restart serves without one"])
        return Snapshot(settings, keyring, self._terms_of(settings))

    def _take(self, candidate: Snapshot) -> list[str]:
        changes = reload.changes_of_keys(self.keyring, candidate.keyring)
        changes += reload.changes_of_settings(self.settings, candidate.settings)
        urls = urls_after_reload(self.settings, self.logins, candidate.settings)
        changes += [
            f"{url}: new connections use another login, of the user {url.username or '(none)'}"
            for url in urls
            if login_of(url) != self.logins.of(url)
        ]
        changes += self._take_tls(candidate.terms)
        self.logins.replace(urls)
        self.keyring.replace(candidate.keyring)
        logs.warn(candidate.keyring.exposed)
        return changes

    @staticmethod
    def _terms_of(settings: Settings) -> tls.Terms | None:
        terms, mistakes = tls.load(settings)
        if mistakes:
            raise SettingsMistakes(mistakes)
        return terms

    def _take_tls(self, terms: tls.Terms | None) -> list[str]:
        """Use ``terms`` for new connections; log their warnings, and return what changed."""
        before, self.tls = self.tls, terms
        if terms is None or (before and before.certificate == terms.certificate):
            return []
        for warning in terms.warnings:
            logs.log.warning("%s", warning)
        return [f"{terms.certificate}, is shown to new connections"]

    def _address(self, listener: object) -> str:
        """Return the URL of ``listener``: gunicorn writes http for IPv6 with TLS."""
        text = str(listener)
        return text.replace("http://", "https://", 1) if self.tls else text

    def load(self) -> WSGIApplication:
        """Return the application. Each worker calls it after the fork, so that no two processes share a connection.

        Only the master creates stores, before: a worker that finds no store must not replace it with an empty one.
        Workers may create a store that the master could not, because its server was down.
        """
        may_create = self.unprepared.__contains__
        store = open_configured(self.settings, self.keyring, may_create, self.logins, guarded=True)
        self.keyring.uses.set_sink(store.note_key_uses)
        self._store = store
        return create_app(self.settings, self.keyring, store)

    def warm_up(self) -> None:
        """Connect to the common store, and check its schema and keys, before the first request has to.

        Meanwhile, connections wait in the listener: what a worker has accepted is lost when it is killed.
        """

        def ask() -> None:
            with contextlib.suppress(Problem):
                self._store.find(_NOBODY, _NOBODY)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_WARMING)
