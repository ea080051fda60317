"""The old name of ``receiver.server.worker``, kept for gunicorn command lines that use it. To be removed in 2.0."""

import warnings

from receiver.server.worker import Worker

__all__ = ["Worker"]

warnings.warn("receiver.worker is now receiver.server.worker", FutureWarning, stacklevel=2)
