"""gunicorn's master, and what it sees to beside the workers: other keys, the admin listener, an end without haste."""

import contextlib
import os
import signal
import time

from gunicorn import systemd, util
from gunicorn.arbiter import Arbiter
from gunicorn.sock import close_sockets

from receiver.network.listeners import listen
from receiver.process.running import base_of
from receiver.server import worker as receiver_worker
from receiver.server.reload import SIGNALS, Reloads, Watch
from receiver.server.worker import Worker
from receiver.telemetry import metrics, standard_error
from receiver.telemetry.log_losses import ADMIN, FIRST_WORKER, MASTER

_PAUSE = 2.0  # seconds at least between two starts of the admin listener
_HEAD_TIMEOUT = 3.0  # seconds in which a probe has to be there
_QUICK = 3  # seconds that workers have to end after SIGINT or SIGQUIT: more than receiver.server.signals.HASTE
_LAST_PATIENCE = 2.0  # seconds that the admin listener has to end


class Master(Arbiter):
    """The master of ``app``, a receiver.server.application.Server, in the process that starts all others."""

    def __init__(self, app):
        super().__init__(app)
        self.watch = Watch(app.settings)
        self.reloads = Reloads(app.refresh, app.life, self.log)
        self.admin: Worker | None = None
        self.admin_sockets: list = []
        self.admin_again = 0.0
        self.ends_at: float | None = None

    def start(self) -> None:
        """Listen; first where probes are answered, so that a start says all addresses, or fails for any.

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
        """Start a worker. No signal gets lost between the fork and the handlers of the worker, which lets them in."""
        with _signals_held():
            return super().spawn_worker()

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        """Return the signals that came, and those that time or changed files bring about."""
        self.app.life.beat(len(self.WORKERS))
        if self.ends_at is not None:
            timeout = max(0.0, min(timeout, self.ends_at - time.monotonic()))
        signals = super().wait_for_signals(timeout)
        if signal.SIGHUP not in signals and self.watch.has_changed():
            self.log.info("files of keys, passwords or certificates have changed")
            signals.append(signal.SIGHUP)
        if self.reloads.is_due() and signal.SIGHUP not in signals:
            signals.append(signal.SIGHUP)
        if self._tidy() and signal.SIGHUP not in signals:  # keys are read once, whatever there is to it
            signals.append(signal.SIGHUP)
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            signals.append(signal.SIGTERM)
        return signals

    def _tidy(self) -> bool:
        """See to the folder of this receiver; return whether keys are to be read again."""
        folder = self.app.folder
        try:
            former = folder.path
            if folder.restore():
                told = "%s was taken away or changed, and %s is made in its place; workers count in it once replaced"
                self.log.warning(told, former, folder.path)
                return bool(self.app.keyring.tried)  # their files are gone, whoever took them
            if not folder.end_trials():
                return False
        except OSError as cause:  # a full disk, say: calls are answered all the same
            self.log.debug("%s: %s", folder.path, cause.strerror)
            return False
        self.log.info("keys for a trial were left behind; they are taken away")
        return True

    def handle_hup(self) -> None:
        """Take the keys, passwords and certificates that are there now, here and in every process."""
        self.watch.settle()
        if self.reloads.take():
            self.kill_workers(signal.SIGHUP)
            if self.admin:
                self._signal_admin(signal.SIGHUP)

    def handle_term(self) -> None:
        """Drain, then stop: balancers see that readiness fails, and look elsewhere while all is still answered.

        The second SIGTERM stops at once.
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
        """Start no other master beside this one, as gunicorn would: the two would want the same admin listener."""
        self.log.warning("SIGUSR2 is not for this server: start another receiver, then stop this one")

    def manage_workers(self) -> None:
        """Have as many workers as are wanted, and the admin listener."""
        super().manage_workers()
        if self.admin and not self._is_admin_there():
            self.admin = None
        if self.admin_sockets and self.admin is None and time.monotonic() >= self.admin_again:
            self.admin_again = time.monotonic() + _PAUSE
            self.admin = self._spawn_admin()

    def murder_workers(self) -> None:
        """End workers that are silent for too long, and an admin listener that is."""
        super().murder_workers()
        if self.admin and time.monotonic() - self.admin.tmp.last_update() > self.timeout:
            self.log.critical("the admin listener is silent")
            self._signal_admin(signal.SIGKILL)

    def reap_workers(self) -> None:
        """Take note of processes that have ended; the admin listener's first, which gunicorn does not know."""
        self._reap_admin()
        super().reap_workers()

    def stop(self, graceful: bool = True) -> None:
        """Stop the workers, then the admin listener: until the end it tells that all is about to end."""
        self.app.life.stop()
        if not graceful:  # workers leave by themselves before that
            self.cfg.set("graceful_timeout", min(self.cfg.graceful_timeout, _QUICK))
        super().stop(graceful)
        if self.admin:
            self._signal_admin(signal.SIGTERM)
            limit = time.monotonic() + _LAST_PATIENCE
            while self.admin and time.monotonic() < limit:
                self._reap_admin()
                time.sleep(0.02)
        if self.admin:
            self._signal_admin(signal.SIGKILL)
            self.admin = None
        close_sockets(self.admin_sockets)
        self.admin_sockets = []

    def free_slot(self) -> int:
        """Return the least number that no worker has (receiver.telemetry.metrics)."""
        taken = {getattr(worker, "slot", None) for worker in self.WORKERS.values()}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def prepare_worker(self, worker: Worker) -> None:
        """See to it, before the fork, that ``worker`` has a place to count in."""
        worker.slot = None
        if self.app.admin:
            slot = self.free_slot()
            try:
                with self.app.folder.opened_metrics() as folder:
                    metrics.prepare_files(folder, slot)
                worker.slot = slot
            except OSError as cause:  # a worker that counts nothing is better than none
                self.log.error("the next worker counts nothing: %s: %s", self.app.folder.path, cause.strerror)

    def enter_worker(self, worker: Worker) -> None:
        """Begin to count, in the process of ``worker``, and let go of what is not for it."""
        self._count_losses(FIRST_WORKER + (worker.slot or 0))
        for sock in self.admin_sockets:
            sock.close()
        if worker.slot is not None:
            try:
                with self.app.folder.opened_metrics() as folder:
                    metrics.start(folder, worker.slot)
            except OSError as cause:  # somebody took it away just now
                self.log.error("this worker counts nothing: %s: %s", self.app.folder.path, cause.strerror)

    def _count_losses(self, place: int) -> None:
        if output := standard_error.installed():
            output.count_in(self.app.life.losses, place)

    def _spawn_admin(self) -> Worker:
        application = self.app.admin
        worker = Worker(0, self.pid, self.admin_sockets, application, self.timeout / 2, application.cfg, self.log)
        with _signals_held():
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
        for listener in self.LISTENERS:  # else connections would go on being made to it when all others have let go
            listener.close()
        receiver_worker.READ_TIMEOUT = _HEAD_TIMEOUT
        worker.pid = os.getpid()
        util._setproctitle(f"admin [{self.proc_name}]")
        worker.init_process()

    def _signal_admin(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.admin.pid, number)

    def _reap_admin(self) -> None:
        if self.admin:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.admin.pid, os.WNOHANG)[0]:
                    self.log.info("the admin listener has ended")
                    self.admin.tmp.close()
                    self.admin = None

    def _is_admin_there(self) -> bool:
        try:  # one that ended while gunicorn was waiting for others was taken by it for nobody's
            os.kill(self.admin.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextlib.contextmanager
def _signals_held():
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
