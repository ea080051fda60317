"""The master process: gunicorn's arbiter, extended by reloads, the admin listener and draining."""

import contextlib
import os
import signal
import time
from typing import Protocol

from gunicorn import systemd, util
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.errors import HaltServer
from gunicorn.sock import BaseSocket, close_sockets

from receiver.keys.keyring import Keyring
from receiver.process.lifecycle import Lifecycle
from receiver.process.run_folder import RunFolder
from receiver.process.running import base_of
from receiver.server.admin_application import AdminApplication
from receiver.server.listeners import listen
from receiver.server.reload import Reloads, Watch
from receiver.server.respawns import Respawns
from receiver.server.worker import Worker
from receiver.server.worker_signals import is_alive, signals_blocked
from receiver.settings import Settings
from receiver.telemetry import metrics, standard_error
from receiver.telemetry.log_losses import ADMIN, FIRST_WORKER, MASTER

_PAUSE = 2.0  # seconds between two starts of the admin listener, at least
_FAST_STOP = 3  # seconds for workers to end after SIGINT or SIGQUIT; above receiver.server.worker_signals.FAST_STOP
_HEARD_AGAIN = 5.0  # seconds after the machine stood still, or its clock stepped, for workers to be heard from
_LAST_PATIENCE = 2.0  # seconds for the admin listener to end


class MasterHost(Protocol):
    """What the master asks of its application, receiver.server.application.Server."""

    settings: Settings
    keyring: Keyring
    life: Lifecycle
    folder: RunFolder
    admin: AdminApplication | None

    def refresh(self) -> list[str]:
        """Take the present keys and certificates; return what changed. Raises SettingsMistakes."""


class Master(Arbiter):
    """The master of ``app``, in the process that starts all others."""

    app: MasterHost
    cfg: Config
    LISTENERS: list[BaseSocket]
    WORKERS: dict[int, Worker]

    def __init__(self, app: MasterHost) -> None:
        super().__init__(app)
        self.watch = Watch(app.settings)
        self.reloads = Reloads(app.refresh, app.life, self.log)
        self.admin: Worker | None = None
        self.admin_sockets: list[BaseSocket] = []
        self.admin_again = 0.0
        self.respawns = Respawns()
        self.ends_at: float | None = None
        self.looked_at = self.spares_until = 0.0  # of murder_workers

    def start(self) -> None:
        """Listen; for probes first, so that a start reports all addresses, or fails if one is taken.

        Raises AddressTaken, SettingsMistakes.
        """
        self._count_losses(MASTER)
        settings = self.app.settings
        base = base_of(settings)
        if self.app.admin:
            self.admin_sockets = listen(self.app.admin.cfg, self.log, "STORAGE_ADMIN_BIND", base)
        if not systemd.listen_fds(unset_environment=False):
            self.LISTENERS = listen(self.cfg, self.log, settings.listen_variable, base)
        super().start()

    def spawn_worker(self) -> int:
        """Start a worker; return its pid. Signals stay blocked until it has its handlers, so that none is lost."""
        with signals_blocked():
            pid: int = super().spawn_worker()
            return pid

    def spawn_workers(self) -> None:
        """Start the missing workers, without gunicorn's pauses, but not while they cannot start (Respawns)."""
        while len(self.WORKERS) < self.num_workers and not self.respawns.pause():
            try:
                self.spawn_worker()
            except OSError as cause:  # no process, memory or file is left; those that run go on
                self.respawns.ended(was_serving=False)
                self.log.error("cannot start a worker: %s", cause.strerror)

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Return the signals that arrived; add SIGHUP for changed files, and SIGTERM at the end of draining."""
        self.app.life.beat(len(self.WORKERS))
        if self.ends_at is not None:
            timeout = max(0.0, min(timeout, self.ends_at - time.monotonic()))
        if len(self.WORKERS) < self.num_workers:
            timeout = min(timeout, self.respawns.pause())
        signals: list[int] = super().wait_for_signals(timeout)
        if signal.SIGHUP not in signals and self.watch.has_changed():
            self.log.info("files of keys, passwords or certificates have changed")
            signals.append(signal.SIGHUP)
        is_due, is_cleaned = self.reloads.is_due(), self._check_folder()
        if (is_due or is_cleaned) and signal.SIGHUP not in signals:  # several reasons cause one reload
            signals.append(signal.SIGHUP)
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            signals.append(signal.SIGTERM)
        return signals

    def _check_folder(self) -> bool:
        """Restore the run folder and remove expired trial keys; return whether keys must be read again."""
        folder = self.app.folder
        try:
            former = folder.path
            if folder.restore():
                text = "%s was removed or changed, so %s replaces it; workers count there after their next start"
                self.log.warning(text, former, folder.path)
                return bool(self.app.keyring.tried)  # the files of the trial keys are gone
            if not folder.end_trials():
                return False
        except OSError as cause:  # for example a full disk; requests are answered nevertheless
            self.log.debug("%s: %s", folder.path, cause.strerror)
            return False
        self.log.info("a trial left keys behind; they are removed")
        return True

    def handle_hup(self) -> None:
        """Take the present keys, passwords and certificates, here and in every process."""
        self.watch.settle()
        if self.reloads.take():
            self.kill_workers(signal.SIGHUP)
            self._signal_admin(signal.SIGHUP)

    def handle_term(self) -> None:
        """Drain, then stop: load balancers see that readiness fails while every request is still answered.

        A second SIGTERM ends the draining.
        """
        seconds = self.app.settings.drain
        if self.ends_at is None and seconds:
            self.ends_at = time.monotonic() + seconds
            self.app.life.drain()
            systemd.sd_notify("STOPPING=1\nSTATUS=Draining", self.log)
            self.log.info("draining: readiness fails now, the listener closes in %g seconds", seconds)
            return
        super().handle_term()

    def handle_usr2(self) -> None:
        """Ignore SIGUSR2: gunicorn would start a second master, which needs the same admin address."""
        self.log.warning("SIGUSR2 is not for this server: start another receiver, then stop this one")

    def manage_workers(self) -> None:
        """Keep the configured number of workers running, and the admin listener."""
        super().manage_workers()
        if self.admin is not None and not is_alive(self.admin.pid):
            self.admin = None
        application = self.app.admin
        if application and self.admin_sockets and self.admin is None and time.monotonic() >= self.admin_again:
            self.admin_again = time.monotonic() + _PAUSE
            try:
                self.admin = self._spawn_admin(application)
            except OSError as cause:
                self.log.error("cannot start the admin listener: %s", cause.strerror)

    def murder_workers(self) -> None:
        """Kill workers that are silent for too long, and a silent admin listener.

        Nobody is silent if this process did not look for long either: the machine or this process stood still, or the
        clock has stepped, as that of a virtual machine can.
        """
        now = time.monotonic()
        if not 0 <= now - self.looked_at < self.timeout / 2:
            self.spares_until = now + _HEARD_AGAIN
        self.looked_at = now
        if 0 <= self.spares_until - now <= _HEARD_AGAIN:
            return
        super().murder_workers()
        if self.admin is not None and time.monotonic() - self.admin.tmp.last_update() > self.timeout:
            self.log.critical("the admin listener is silent")
            self._signal_admin(signal.SIGKILL)

    def reap_workers(self) -> None:
        """Collect processes that have ended; first the admin listener, which gunicorn does not know."""
        self._reap_admin()
        before = dict(self.WORKERS)
        failure = None
        while True:
            try:
                super().reap_workers()
                break
            except HaltServer as cause:  # a worker that could not load the application; there may be more
                failure = cause
        for pid in before.keys() - self.WORKERS.keys():
            before[pid].tmp.close()
            self.respawns.ended(before[pid].was_serving)
        if failure and not self._has_served():
            self.respawns.has_served = True  # raise once: the stop that follows collects the others
            raise failure

    def _has_served(self) -> bool:
        return self.respawns.has_served or any(one.was_serving for one in self.WORKERS.values())

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers, then the admin listener, which reports the end of the receiver meanwhile."""
        self.app.life.stop()
        if not graceful:  # workers end by themselves before that
            self.cfg.set("graceful_timeout", min(self.cfg.graceful_timeout, _FAST_STOP))
        super().stop(graceful)
        self._signal_admin(signal.SIGTERM)
        limit = time.monotonic() + _LAST_PATIENCE
        while self.admin is not None and time.monotonic() < limit:
            self._reap_admin()
            time.sleep(0.02)
        self._signal_admin(signal.SIGKILL)
        self.admin = None
        close_sockets(self.admin_sockets)
        self.admin_sockets = []

    def free_slot(self) -> int:
        """Return the lowest number that no worker has (receiver.telemetry.metrics)."""
        taken = {worker.slot for worker in self.WORKERS.values()}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def prepare_worker(self, worker: Worker) -> None:
        """Create the metrics files of ``worker``, before the fork."""
        worker.slot = None
        if self.app.admin:
            slot = self.free_slot()
            try:
                with self.app.folder.opened_metrics() as folder:
                    metrics.prepare_files(folder, slot)
                worker.slot = slot
            except OSError as cause:  # a worker without metrics is better than none
                self.log.error("the next worker has no metrics: %s: %s", self.app.folder.path, cause.strerror)

    def enter_worker(self, worker: Worker) -> None:
        """Begin to count, in the process of ``worker``, and close the admin listener's sockets."""
        self._count_losses(FIRST_WORKER + (worker.slot or 0))
        for sock in self.admin_sockets:
            sock.close()
        if worker.slot is not None:
            try:
                with self.app.folder.opened_metrics() as folder:
                    metrics.start(folder, worker.slot)
            except OSError as cause:  # another process has just removed it
                self.log.error("this worker has no metrics: %s: %s", self.app.folder.path, cause.strerror)

    def _count_losses(self, place: int) -> None:
        if output := standard_error.installed():
            output.count_in(self.app.life.losses, place)

    def _spawn_admin(self, application: AdminApplication) -> Worker:
        worker = Worker(0, self.pid, self.admin_sockets, application, self.timeout / 2, application.cfg, self.log)
        with signals_blocked():
            pid = os.fork()
            if pid:
                worker.pid = pid
                return worker
            try:
                self._run_admin(worker)
            except SystemExit:
                pass
            except BaseException:
                self.log.exception("the admin listener ends")
            standard_error.flush()
            os._exit(0)  # an orderly exit would wait for the threads of checks that hang

    def _run_admin(self, worker: Worker) -> None:
        self._count_losses(ADMIN)
        for other in self.WORKERS.values():
            other.tmp.close()
        for listener in self.LISTENERS:  # else the system would accept connections after all workers have ended
            listener.close()
        worker.pid = os.getpid()
        util._setproctitle(f"admin [{self.proc_name}]")
        worker.init_process()

    def _signal_admin(self, number: int) -> None:
        if self.admin is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.admin.pid, number)

    def _reap_admin(self) -> None:
        if self.admin is not None:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.admin.pid, os.WNOHANG)[0]:
                    self.log.info("the admin listener has ended")
                    self.admin.tmp.close()
                    self.admin = None
