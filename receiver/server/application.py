"""gunicorn, configured: what ``receiver serve`` runs."""

import gc
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger as GunicornLogger

from receiver.admin.listener import AdminApplication
from receiver.app import create_app
from receiver.bootstrap import configure_anew, open_configured
from receiver.files import ownership
from receiver.keys.keyring import Keyring
from receiver.network import tls
from receiver.network.addresses import AccessPolicy
from receiver.network.listeners import AddressTaken
from receiver.process import running
from receiver.process.lifecycle import Lifecycle
from receiver.server import heads, reload, worker
from receiver.server.arbiter import Master
from receiver.server.offers import Offer, check_stores, store_urls_taken
from receiver.settings import Settings, SettingsMistakes
from receiver.stores.logins import Logins, login_of
from receiver.stores.urls.store_url import StoreURL
from receiver.telemetry import logs

_CONNECTIONS = 10_000  # of each worker; one that is idle takes some KiB, and gunicorn's thousand are soon held
_FILES = 65_536
_FOLLOW_EVERY = 2.0  # seconds between two looks whether what is there is what the master took
_FOLLOW_FOR = 60.0  # seconds of that; then the process ends, and the one in its place has what the master has


def _allow_files() -> None:
    """Let this process and its workers open as many files as the system allows, rather than what a shell gives."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class Logger(GunicornLogger):
    """gunicorn's messages in the receiver's own form; requests are logged by the application."""

    def setup(self, cfg) -> None:
        """Let the root logger's handler write what gunicorn says."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):
    """The receiver under gunicorn. ``on_ready`` is called with its addresses, and that of the admin listener or None.

    ``unprepared`` are the places whose stores workers may create. Raises SettingsMistakes for what TLS needs.
    """

    def __init__(
        self,
        settings: Settings,
        keyring: Keyring,
        on_ready: Callable[[list[str], str | None], None],
        unprepared: Sequence[StoreURL] = (),
    ):
        self.unprepared = unprepared
        self.settings = settings
        self.keyring = keyring
        self.on_ready = on_ready
        self.gate = AccessPolicy(settings.allow_from, settings.trusted_proxies)
        self.has_folder = settings.keys.is_dir()
        self.life = Lifecycle()
        self.folder: running.RunFolder | None = None
        self.admin: AdminApplication | None = None
        self.logins = Logins(settings.store_urls, are_watched=True)
        self.tls: tls.Terms | None = None
        self._master, self._salt = os.getpid(), os.urandom(32)
        self._take_tls(self._terms_of(settings))
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
            "keepalive": self.settings.keep_alive,
            "worker_connections": _CONNECTIONS,
            "control_socket_disable": True,
            "certfile": self.settings.tls_cert or None,
            "keyfile": self.settings.tls_key or None,
            "loglevel": logs.gunicorn_level(self.settings.log_level),
            "forwarded_allow_ips": ",".join(self.settings.trusted_proxies),
            "forwarder_headers": "",
            "header_map": "drop",  # X_ManyWho_Signature is not the signature, and nobody takes it for that
            "limit_request_line": 4094,
            "limit_request_fields": heads.MOST_HEADERS,
            "limit_request_field_size": self.settings.max_header,
            "logger_class": "receiver.server.application.Logger",
            "proc_name": "receiver",
            "worker_tmp_dir": running.shared_memory(),  # on a busy disk they would look silent, and be killed
            "when_ready": self._introduce,
            "pre_fork": lambda master, one: master.prepare_worker(one),
            "post_fork": lambda master, one: master.enter_worker(one),
            "on_exit": lambda _master: self.folder.remove(),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def run(self) -> None:
        """Serve until told to stop. Raises SettingsMistakes when there is no place for what is kept meanwhile."""
        _allow_files()
        self.life.accept(Offer(self.settings, self.keyring, self.tls).digest(self._salt))
        base = running.base_of(self.settings)
        try:
            self.folder = running.RunFolder(base)
        except OSError as cause:
            raise SettingsMistakes(
                [f"STORAGE_RUN_DIR: no folder can be made in {base} ({cause.strerror}){ownership(base)}"]
            ) from None
        if self.settings.admin_bind != "off":
            ours = self.settings, self.keyring, self.life, self.folder
            self.admin = AdminApplication(*ours, self.refresh, lambda: self.tls, self.logins)
        gc.collect()  # here and not in each worker: looking through memory would end that they share it
        try:
            Master(self).run()
        except (AddressTaken, SettingsMistakes):
            self.folder.remove()
            raise

    def _introduce(self, master: Master) -> None:
        """Say who listens where, to people and to the commands that look for this receiver."""
        addresses = [self._address(one) for one in master.LISTENERS]
        admin = str(master.admin_sockets[0]) if master.admin_sockets else None
        self.folder.introduce(addresses, admin)
        self.on_ready(addresses, admin)

    def refresh(self) -> list[str]:
        """Take the keys, logins and certificates that are there now, all or none; returns what changed.

        The master decides, by the rules of a start, and asks stores where these need it. Any other process takes what
        the master took, and waits until that is what is there. Raises SettingsMistakes.
        """
        offer = self._offer()
        if os.getpid() == self._master:
            check_stores(Offer(self.settings, self.keyring, self.tls), self.logins, offer)
            changes = self._take(offer)
            self.life.accept(offer.digest(self._salt))
            return changes
        until = time.monotonic() + _FOLLOW_FOR
        while offer.digest(self._salt) != self.life.accepted:
            if time.monotonic() >= until:
                logs.log.warning("the files hold something else than was taken; this process is replaced by another")
                os.kill(os.getpid(), signal.SIGTERM)
                raise SettingsMistakes(["what the receiver took is not in the files any more"])
            time.sleep(_FOLLOW_EVERY)
            offer = self._offer()
        return self._take(offer)

    def _offer(self) -> Offer:
        """Return what is there to be taken. Raises SettingsMistakes for what needs no store to be seen."""
        with self.folder.trial_keys() as trial:
            settings, keyring = configure_anew(trial)
        if self.has_folder and not settings.keys.is_dir():
            raise SettingsMistakes([f"{settings.keys}: the directory of keys is gone (is the volume mounted?)"])
        if self.keyring.sealing and not keyring.sealing:
            raise SettingsMistakes(["STORAGE_SEALING_KEY: no sealing key is left; a restart serves without one"])
        return Offer(settings, keyring, self._terms_of(settings))

    def _take(self, offer: Offer) -> list[str]:
        changes = reload.changes_of_keys(self.keyring, offer.keyring)
        changes += reload.changes_of_settings(self.settings, offer.settings)
        store_urls = store_urls_taken(self.settings, self.logins, offer.settings)
        changes += [
            f"{store_url}: connections are made with another login, of the user {store_url.username or '(none)'}"
            for store_url in store_urls
            if login_of(store_url) != self.logins.of(store_url)
        ]
        changes += self._take_tls(offer.terms)
        self.logins.replace(store_urls)
        self.keyring.replace(offer.keyring)
        logs.warn(offer.keyring.exposed)
        return changes

    @staticmethod
    def _terms_of(settings: Settings) -> tls.Terms | None:
        terms, mistakes = tls.load(settings)
        if mistakes:
            raise SettingsMistakes(mistakes)
        return terms

    def _take_tls(self, terms: tls.Terms | None) -> list[str]:
        """Take ``terms``, which name a certificate; returns what is new about it, logs what is odd."""
        before, self.tls = self.tls, terms
        if terms is None or (before and before.certificate == terms.certificate):
            return []
        for warning in terms.warnings:
            logs.log.warning("%s", warning)
        return [f"{terms.certificate}, is shown to new connections"]

    def _address(self, listener: object) -> str:
        """Return where ``listener`` answers; gunicorn tells it wrongly for IPv6 with TLS."""
        text = str(listener)
        return text.replace("http://", "https://", 1) if self.tls else text

    def load(self):
        """Return the application; called in each worker, so that nothing of a store is shared over a fork.

        Only the master, before, may create the store: a worker that starts later and finds none must not
        replace it by an empty one. Where the master could not, because a server was down, workers may.
        """
        may_create = self.unprepared.__contains__
        store = open_configured(self.settings, self.keyring, may_create, self.logins, guarded=True)
        self.keyring.uses.set_sink(store.note_key_uses)
        return create_app(self.settings, self.keyring, store)
