"""Whether a receiver listens at all, asked so often and so briefly that a page can show it."""

import socket
import threading
import time
from urllib.parse import urlsplit

_FRESH = 1.0  # seconds that an answer counts
_PATIENCE = 0.5  # seconds for a connection


class Reach:
    """Tells which endpoints take connections, for many threads."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, bool]] = {}
        self._guard = threading.Lock()

    def answers(self, endpoint: str) -> bool:
        """Return whether something listens at the URL ``endpoint``, as it was a second ago at most."""
        with self._guard:
            asked, found = self._found.get(endpoint, (0.0, False))
        if asked and time.monotonic() - asked < _FRESH:
            return found
        found = _connects(endpoint)
        with self._guard:
            self._found[endpoint] = time.monotonic(), found
        return found


def _connects(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    try:
        socket.create_connection((parts.hostname or "", port), _PATIENCE).close()
    except OSError:
        return False
    return True
