"""The old name of ``receiver.server.worker``, for command lines of gunicorn that give it; it goes with 2.0."""

import warnings

from receiver.server.worker import Worker

__all__ = ["Worker"]

warnings.warn("receiver.worker is now receiver.server.worker", FutureWarning, stacklevel=2)
