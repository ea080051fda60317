"""gunicorn for the two servers that the receiver is compared with, under the receiver's own settings."""

import os
from collections.abc import Callable

from gunicorn.app.base import BaseApplication

_SHARED_MEMORY = "/dev/shm"


class Bare(BaseApplication):
    """gunicorn with what ``receiver.server.application`` sets too, and its stock worker unless ``worker`` names another class.

    ``BENCH_WORKERS`` and ``BENCH_THREADS`` are in the environment. Prints the address when it listens.
    """

    def __init__(self, load: Callable[[], Callable], worker: str = "gthread"):
        self.load, self.worker = load, worker
        super().__init__()

    def load_config(self) -> None:
        options = {
            "bind": "127.0.0.1:0",
            "worker_class": self.worker,
            "workers": int(os.environ["BENCH_WORKERS"]),
            "threads": int(os.environ["BENCH_THREADS"]),
            "timeout": 60,
            "keepalive": 75,
            "control_socket_disable": True,
            "loglevel": "warning",
            "limit_request_fields": 100,
            "worker_tmp_dir": _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None,
            "when_ready": lambda arbiter: print(*arbiter.LISTENERS, flush=True),
        }
        for name, value in options.items():
            self.cfg.set(name, value)
