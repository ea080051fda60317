"""Finds out whether a receiver listens, quickly enough for a page that refreshes often."""

import socket
import threading
import time
from urllib.parse import urlsplit

_FRESH = 1.0  # seconds that a result stays valid
_PATIENCE = 0.5  # seconds to connect


class Reach:
    """Finds out which endpoints accept connections. Thread-safe."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, bool]] = {}
        self._guard = threading.Lock()

    def answers(self, endpoint: str) -> bool:
        """Return whether something listens at the URL ``endpoint``; the result is at most a second old."""
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
