"""Receipts and effects: they bind a change to the request that made it, so that a retry has no second effect."""

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.problems import ReplayRefused, StoreDamaged


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof of which request made a change (protocol, section 3.4).

    ``jti`` is the request's unique id, ``method`` its HTTP method, ``digest`` the SHA-256 of its body (32
    bytes). ``now`` and ``expires`` are seconds since the epoch: when it arrived, and until when it is kept.
    With ``enforce``, a conflicting use is refused; without, it is only reported.
    """

    jti: str
    method: str
    digest: bytes
    now: int
    expires: int
    enforce: bool = True

    def compare(self, kept: Sequence[object] | None) -> str:
        """Return how this ``jti`` was used, "new", "repeated" or "conflicting".

        ``kept`` is the (method, digest) stored under it, or None. Raises ReplayRefused for a conflict if ``enforce`` is
        set; without it, a repetition counts as new. Raises StoreDamaged when ``kept`` is not a method and a digest.
        """
        if kept is None:
            return "new"
        method, digest = kept
        if not (isinstance(method, str) and isinstance(digest, bytes | bytearray | memoryview)):
            raise StoreDamaged("the receipt of a request cannot be read back")
        same = (method, bytes(digest)) == (self.method, self.digest)
        if not self.enforce:
            return "new" if same else "conflicting"
        if not same:
            raise ReplayRefused("jti: used before for another change")
        return "repeated"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change did: how many states it ``stored`` or deleted, and how many older ones it ``ignored``.

    ``jti_was`` is "new", "repeated" (the identical request came before, so nothing was done) or "conflicting".
    """

    stored: int = 0
    ignored: int = 0
    jti_was: str = "new"
